/**
 * jupyter_agent in JupyterLab: small plugins around one model.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILayoutRestorer } from '@jupyterlab/application';
import {
  CommandToolbarButton,
  ICommandPalette,
  MainAreaWidget,
  Notification,
  WidgetTracker
} from '@jupyterlab/apputils';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { IStatusBar } from '@jupyterlab/statusbar';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ITranslator } from '@jupyterlab/translation';
import { Toolbar } from '@jupyterlab/ui-components';
import { Poll } from '@lumino/polling';
import { Signal } from '@lumino/signaling';

import { addCommands } from './commands';
import type { IEnvironmentsModel } from './environments';
import { ENVIRONMENTS_MS, EnvironmentsModel } from './environments';
import type { EnvironmentView } from './environmentview';
import { explained } from './environmentwords';
import { MeantFiles, offerInEditors, offerInFileBrowser } from './files';
import { stateIcon } from './icons';
import type { IAgentModel } from './model';
import { AgentModel } from './model';
import type { IOthersModel } from './others';
import { OTHERS_MS, OthersModel } from './others';
import { AgentPanel } from './panel';
import { agentAPI, environmentsAPI, othersAPI, sentence } from './request';
import { OtherRun, OwnRun } from './runsource';
import type { RunView, Tab } from './runview';
import { agentEvent, hasEnded } from './shapes';
import { statusItem } from './statusitem';
import type { IRunAt } from './tokens';
import { CommandIDs, IAgent, IEnvironments, IEnvironmentViews, IMeantFiles, IOthers, IRunViews } from './tokens';
import { kindWord, stateWord, title, toneOf } from './words';

const DOMAIN = 'jupyter_agent';

/** How often all is read again, in case an event was missed, and how often while nothing answers. */
const PACE_MS = { usual: 10_000, unreachable: 2_000 };

const modelPlugin: JupyterFrontEndPlugin<IAgentModel> = {
  id: 'jupyter-agent:model',
  description: 'Keeps what the page knows of the agent.',
  autoStart: true,
  provides: IAgent,
  activate: (app: JupyterFrontEnd) => {
    const { serviceManager } = app;
    const model = new AgentModel({ api: agentAPI(serviceManager.serverSettings) });
    serviceManager.events.stream.connect((_, emission) => {
      const event = agentEvent(emission);
      if (event) {
        model.apply(event);
      }
    });
    const poll = new Poll({
      name: 'jupyter-agent:model',
      auto: false,
      factory: async () => {
        await model.refresh();
        const interval = model.reach === 'unreachable' ? PACE_MS.unreachable : PACE_MS.usual;
        poll.frequency = { interval, backoff: false, max: interval };
      },
      frequency: { interval: PACE_MS.usual, backoff: false, max: PACE_MS.usual },
      standby: 'when-hidden'
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) {
        void poll.refresh();
      }
    });
    serviceManager.connectionFailure.connect(() => void poll.refresh());
    void app.restored.then(() => poll.start());
    return model;
  }
};

const othersPlugin: JupyterFrontEndPlugin<IOthersModel> = {
  id: 'jupyter-agent:others',
  description: 'Keeps what the page knows of other agents.',
  autoStart: true,
  provides: IOthers,
  requires: [IAgent],
  activate: (app: JupyterFrontEnd, model: IAgentModel) =>
    new OthersModel({
      api: othersAPI(app.serviceManager.serverSettings),
      isConnected: () => model.usable
    })
};

const environmentsPlugin: JupyterFrontEndPlugin<IEnvironmentsModel> = {
  id: 'jupyter-agent:environments',
  description: 'Keeps what the page knows of the environments.',
  autoStart: true,
  provides: IEnvironments,
  requires: [IAgent],
  activate: (app: JupyterFrontEnd, model: IAgentModel) => {
    const environments = new EnvironmentsModel({
      api: environmentsAPI(app.serviceManager.serverSettings),
      isRunning: () => model.running
    });
    app.serviceManager.events.stream.connect((_, emission) => {
      if (agentEvent(emission)?.environment) {
        environments.look();
      }
    });
    const ended = new Set<string>();
    model.runChanged.connect((_, run) => {
      // Each end is news once: by then what the run made, used or changed is known.
      if (hasEnded(run) ? !ended.has(run.id) : run.kind === 'environment' && run.state === 'preparing') {
        if (hasEnded(run)) {
          ended.add(run.id);
        }
        environments.look();
      }
    });
    return environments;
  }
};

const environmentViewsPlugin: JupyterFrontEndPlugin<IEnvironmentViews> = {
  id: 'jupyter-agent:environment-views',
  description: 'Opens environments in the main area.',
  autoStart: true,
  provides: IEnvironmentViews,
  requires: [IAgent, IEnvironments, ITranslator],
  optional: [ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    model: IAgentModel,
    environments: IEnvironmentsModel,
    translator: ITranslator,
    restorer: ILayoutRestorer | null
  ) => {
    const { commands, shell } = app;
    const trans = translator.load(DOMAIN);
    const tracker = new WidgetTracker<MainAreaWidget<EnvironmentView>>({ namespace: 'jupyter-agent-environments' });
    const find = (id: string) =>
      tracker.find(({ content }) => content.environmentId === id || content.details?.id === id);
    const create = async (id: string): Promise<MainAreaWidget<EnvironmentView>> => {
      const { EnvironmentView } = await import('./environmentview');
      const widget = new MainAreaWidget({
        content: new EnvironmentView({ id, model, environments, commands, trans })
      });
      widget.id = `jupyter-agent-environment-${id}`;
      widget.toolbar.addClass('jp-agent-RunToolbar');
      const add = (name: string, command: string, label: string): void => {
        widget.toolbar.addItem(name, new CommandToolbarButton({ commands, id: command, args: { id }, label }));
      };
      add('verify', CommandIDs.verifyEnvironment, trans.__('Verify'));
      add('repair', CommandIDs.repairEnvironment, trans.__('Repair'));
      widget.toolbar.addItem('spacer', Toolbar.createSpacerItem());
      add('copy-path', CommandIDs.copyEnvironmentPath, trans.__('Copy path'));
      add('remove', CommandIDs.removeEnvironment, trans.__('Remove'));
      return widget;
    };
    if (restorer) {
      void restorer.restore(tracker, {
        command: CommandIDs.showEnvironment,
        args: ({ content }) => ({ id: content.environmentId }),
        name: ({ content }) => content.environmentId
      });
    }
    return {
      open: async (id: string) => {
        let widget = find(id);
        if (!widget) {
          widget = await create(id);
          shell.add(widget, 'main');
          await tracker.add(widget);
        }
        shell.activateById(widget.id);
      },
      get inFront() {
        const current = tracker.currentWidget;
        return current && shell.currentWidget === current ? current.content.environmentId : null;
      },
      get isVisible() {
        return tracker.find(widget => widget.isVisible) !== undefined;
      },
      close: (id: string) => find(id)?.dispose()
    };
  }
};

const filesPlugin: JupyterFrontEndPlugin<IMeantFiles> = {
  id: 'jupyter-agent:files',
  description: 'Environments from the file browser and from open files.',
  autoStart: true,
  provides: IMeantFiles,
  requires: [ITranslator],
  optional: [IFileBrowserFactory],
  activate: (app: JupyterFrontEnd, translator: ITranslator, factory: IFileBrowserFactory | null) => {
    const trans = translator.load(DOMAIN);
    if (factory) {
      offerInFileBrowser(app);
    }
    offerInEditors(app, trans);
    return new MeantFiles(app, factory);
  }
};

const viewsPlugin: JupyterFrontEndPlugin<IRunViews> = {
  id: 'jupyter-agent:run-views',
  description: 'Opens runs in the main area.',
  autoStart: true,
  provides: IRunViews,
  requires: [IAgent, IOthers, IRenderMimeRegistry, ITranslator],
  optional: [ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    model: IAgentModel,
    others: IOthersModel,
    rendermime: IRenderMimeRegistry,
    translator: ITranslator,
    restorer: ILayoutRestorer | null
  ) => {
    const trans = translator.load(DOMAIN);
    const tracker = new WidgetTracker<MainAreaWidget<RunView>>({ namespace: 'jupyter-agent' });
    const same = (a: IRunAt, b: IRunAt): boolean => a.id === b.id && a.agent === b.agent;
    const at = ({ content }: MainAreaWidget<RunView>): IRunAt => ({ id: content.runId, agent: content.agent });
    const create = async ({ id, agent }: IRunAt): Promise<MainAreaWidget<RunView>> => {
      const { RunView } = await import('./runview');
      const { serverSettings: settings, user } = app.serviceManager;
      const source =
        agent === null
          ? new OwnRun({ model, id, sentence })
          : new OtherRun({ others, slug: agent, id, now: () => model.now() });
      const content = new RunView({
        source,
        settings,
        rendermime,
        commands: app.commands,
        me: () => user.identity?.username,
        trans
      });
      const widget = new MainAreaWidget({ content });
      widget.id = ['jupyter-agent-run', agent, id].filter(Boolean).join('-');
      widget.toolbar.addClass('jp-agent-RunToolbar');
      fillToolbar(widget.toolbar, app, { id, agent }, trans);
      if (agent !== null) {
        content.changed.connect(() => views.changed.emit());
      }
      return widget;
    };
    if (restorer) {
      void restorer.restore(tracker, {
        command: CommandIDs.openRun,
        args: widget => ({ ...at(widget) }),
        name: ({ content }) => (content.agent === null ? content.runId : `${content.agent}:${content.runId}`)
      });
    }
    const views = {
      changed: new Signal<IRunViews, void>({} as IRunViews),
      open: async (run: IRunAt, tab?: Tab) => {
        let widget = tracker.find(it => same(at(it), run));
        if (!widget) {
          widget = await create(run);
          app.shell.add(widget, 'main');
          await tracker.add(widget);
        }
        if (tab) {
          widget.content.choose(tab);
        }
        app.shell.activateById(widget.id);
      },
      get inFront() {
        const current = tracker.currentWidget;
        return current && app.shell.currentWidget === current ? at(current) : null;
      },
      isVisible: (run: IRunAt) => tracker.find(it => same(at(it), run))?.isVisible ?? false,
      find: (run: IRunAt) => tracker.find(it => same(at(it), run))?.content.run
    };
    return views;
  }
};

function fillToolbar(toolbar: Toolbar, app: JupyterFrontEnd, run: IRunAt, trans: TranslationBundle): void {
  const args = { ...run };
  const add = (name: string, id: string, label: string): void => {
    toolbar.addItem(name, new CommandToolbarButton({ commands: app.commands, id, args, label }));
  };
  if (run.agent === null) {
    add('cancel', CommandIDs.cancelRun, trans.__('Cancel'));
    add('again', CommandIDs.rerun, trans.__('Run again'));
    toolbar.addItem('spacer', Toolbar.createSpacerItem());
    add('report', CommandIDs.openReport, trans.__('HTML report'));
  } else {
    add('cancel', CommandIDs.cancelRunOnAgent, trans.__('Cancel'));
    toolbar.addItem('spacer', Toolbar.createSpacerItem());
  }
  add('copy-id', CommandIDs.copyRunId, trans.__('Copy ID'));
}

const panelPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agent:panel',
  description: 'The left panel and the commands.',
  autoStart: true,
  requires: [IAgent, IOthers, IEnvironments, IEnvironmentViews, IMeantFiles, IRunViews, ITranslator],
  optional: [ICommandPalette, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    model: IAgentModel,
    others: IOthersModel,
    environments: IEnvironmentsModel,
    environmentViews: IEnvironmentViews,
    files: IMeantFiles,
    views: IRunViews,
    translator: ITranslator,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null
  ) => {
    const { commands, shell } = app;
    const trans = translator.load(DOMAIN);
    const panel = new AgentPanel({
      model,
      others,
      environments,
      commands,
      translator,
      onShown: startOnce(model, commands)
    });
    shell.add(panel, 'left', { rank: 250, type: 'Agent' });
    restorer?.add(panel, panel.id);
    keepLooking(panel, model, others);
    keepReading(panel, model, environments, environmentViews);
    const openPanel = (): void => shell.activateById(panel.id);
    addCommands({ app, model, others, environments, environmentViews, files, trans, views, openPanel });
    for (const command of Object.values(CommandIDs)) {
      palette?.addItem({ command, category: trans.__('Agent') });
    }
    model.runEnded.connect((_, run) => {
      if (views.isVisible({ id: run.id, agent: null })) {
        return;
      }
      const kind = kindWord(run.kind, trans);
      const name = kind ? `${title(run)} (${kind})` : title(run);
      const text = `${name}: ${stateWord(run.state, trans)}. ${explained(run.error ?? '').sentence}`.trim();
      const open = {
        label: trans.__('Open'),
        callback: () => void commands.execute(CommandIDs.openRun, { id: run.id })
      };
      const good = toneOf(run.state) === 'good';
      Notification.emit(text, good ? 'success' : 'warning', { autoClose: good ? 5000 : false, actions: [open] });
    });
  }
};

/** Other agents are looked at only while somebody can see them, and at once when that begins or may have news. */
function keepLooking(panel: AgentPanel, model: IAgentModel, others: IOthersModel): void {
  const poll = new Poll({
    name: 'jupyter-agent:others',
    auto: false,
    factory: () => others.refresh(),
    frequency: { interval: OTHERS_MS.runs, backoff: false, max: OTHERS_MS.runs },
    standby: () => document.hidden || !panel.showsAgents
  });
  const look = (): void => {
    if (!document.hidden && panel.showsAgents) {
      void poll.refresh();
    }
  };
  panel.agentsShown.connect(look);
  model.changed.connect((_, change) => {
    if (change !== 'runs') {
      look();
    }
  });
  document.addEventListener('visibilitychange', look);
  void poll.start();
}

/** Environments are read while somebody can see them, and at once when that begins or there is news. */
function keepReading(
  panel: AgentPanel,
  model: IAgentModel,
  environments: IEnvironmentsModel,
  views: IEnvironmentViews
): void {
  const isSeen = (): boolean => !document.hidden && (panel.showsEnvironments || views.isVisible);
  const poll = new Poll({
    name: 'jupyter-agent:environments',
    auto: false,
    factory: () => environments.refresh(),
    frequency: { interval: ENVIRONMENTS_MS, backoff: false, max: ENVIRONMENTS_MS },
    standby: () => !isSeen()
  });
  const look = (): void => {
    if (isSeen()) {
      void poll.refresh();
    }
  };
  panel.environmentsShown.connect(look);
  environments.news.connect(look);
  model.changed.connect((_, change) => {
    if (change === 'status') {
      look();
    }
  });
  document.addEventListener('visibilitychange', look);
  void poll.start();
}

/** What the panel does when it is shown: the first time, an agent that does not run is started. */
function startOnce(model: IAgentModel, commands: JupyterFrontEnd['commands']): () => void {
  let shown = false;
  return () => {
    if (shown) {
      return;
    }
    shown = true;
    void model.refresh().then(() => {
      if (model.reach === 'answering' && !model.running) {
        void commands.execute(CommandIDs.start);
      }
    });
  };
}

const statusPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agent:status-bar',
  description: 'The item in the status bar.',
  autoStart: true,
  requires: [IAgent, ITranslator],
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, model: IAgentModel, translator: ITranslator, statusBar: IStatusBar | null) => {
    const item = statusItem({ model, commands: app.commands, trans: translator.load(DOMAIN) });
    statusBar?.registerStatusItem('jupyter-agent:status', { item, align: 'left', rank: 3 });
  }
};

const runningPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agent:running',
  description: 'Live runs in Jupyter’s own panel of what is running.',
  autoStart: true,
  requires: [IAgent, ITranslator],
  optional: [IRunningSessionManagers],
  activate: (
    app: JupyterFrontEnd,
    model: IAgentModel,
    translator: ITranslator,
    managers: IRunningSessionManagers | null
  ) => {
    const trans = translator.load(DOMAIN);
    const live = () => (model.running ? (model.runs ?? []).filter(run => !hasEnded(run)) : []);
    const cancel = (id: string) => void app.commands.execute(CommandIDs.cancelRun, { id });
    managers?.add({
      name: trans.__('Agent Runs'),
      running: () =>
        live().map(run => ({
          open: () => void app.commands.execute(CommandIDs.openRun, { id: run.id }),
          shutdown: () => cancel(run.id),
          icon: () => stateIcon(run.state),
          label: () => title(run),
          labelTitle: () => `${title(run)}\n${run.id}`,
          detail: () => run.progress?.label ?? stateWord(run.state, trans)
        })),
      shutdownAll: () => live().forEach(run => cancel(run.id)),
      refreshRunning: () => void model.refresh(),
      runningChanged: model.changed,
      shutdownLabel: trans.__('Cancel'),
      shutdownAllLabel: trans.__('Cancel All'),
      shutdownAllConfirmationText: trans.__('Are you sure you want to cancel all runs of the agent?')
    });
  }
};

export default [
  modelPlugin,
  othersPlugin,
  environmentsPlugin,
  viewsPlugin,
  environmentViewsPlugin,
  filesPlugin,
  panelPlugin,
  statusPlugin,
  runningPlugin
];
