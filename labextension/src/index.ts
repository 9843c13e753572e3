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
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator } from '@jupyterlab/translation';
import { Toolbar } from '@jupyterlab/ui-components';
import { Poll } from '@lumino/polling';

import { addCommands } from './commands';
import { stateIcon } from './icons';
import type { IAgentModel } from './model';
import { AgentModel } from './model';
import { AgentPanel } from './panel';
import { agentAPI } from './request';
import type { RunView } from './runview';
import { agentEvent, hasEnded } from './shapes';
import { statusItem } from './statusitem';
import { CommandIDs, IAgent, IRunViews } from './tokens';
import { stateWord, title, toneOf } from './words';

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

const viewsPlugin: JupyterFrontEndPlugin<IRunViews> = {
  id: 'jupyter-agent:run-views',
  description: 'Opens runs in the main area.',
  autoStart: true,
  provides: IRunViews,
  requires: [IAgent, IRenderMimeRegistry, ITranslator],
  optional: [ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    model: IAgentModel,
    rendermime: IRenderMimeRegistry,
    translator: ITranslator,
    restorer: ILayoutRestorer | null
  ) => {
    const trans = translator.load(DOMAIN);
    const tracker = new WidgetTracker<MainAreaWidget<RunView>>({ namespace: 'jupyter-agent' });
    const create = async (runId: string): Promise<MainAreaWidget<RunView>> => {
      const { RunView } = await import('./runview');
      const { serverSettings: settings, user } = app.serviceManager;
      const content = new RunView({ runId, model, settings, rendermime, me: () => user.identity?.username, trans });
      const widget = new MainAreaWidget({ content });
      widget.id = `jupyter-agent-run-${runId}`;
      widget.toolbar.addClass('jp-agent-RunToolbar');
      fillToolbar(widget.toolbar, app, runId, trans.__('Cancel'), trans.__('HTML report'), trans.__('Copy ID'));
      return widget;
    };
    if (restorer) {
      void restorer.restore(tracker, {
        command: CommandIDs.openRun,
        args: widget => ({ id: widget.content.runId }),
        name: widget => widget.content.runId
      });
    }
    return {
      open: async (runId, tab) => {
        let widget = tracker.find(it => it.content.runId === runId);
        if (!widget) {
          widget = await create(runId);
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
        return current && app.shell.currentWidget === current ? current.content.runId : null;
      },
      isVisible: runId => tracker.find(it => it.content.runId === runId)?.isVisible ?? false
    };
  }
};

function fillToolbar(
  toolbar: Toolbar,
  app: JupyterFrontEnd,
  id: string,
  cancel: string,
  report: string,
  copy: string
): void {
  const button = (command: string, label: string): CommandToolbarButton =>
    new CommandToolbarButton({ commands: app.commands, id: command, args: { id }, label });
  toolbar.addItem('cancel', button(CommandIDs.cancelRun, cancel));
  toolbar.addItem('spacer', Toolbar.createSpacerItem());
  toolbar.addItem('report', button(CommandIDs.openReport, report));
  toolbar.addItem('copy-id', button(CommandIDs.copyRunId, copy));
}

const panelPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agent:panel',
  description: 'The left panel and the commands.',
  autoStart: true,
  requires: [IAgent, IRunViews, ITranslator],
  optional: [ICommandPalette, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    model: IAgentModel,
    views: IRunViews,
    translator: ITranslator,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null
  ) => {
    const { commands, shell } = app;
    const trans = translator.load(DOMAIN);
    const panel = new AgentPanel({ model, commands, translator, onShown: startOnce(model, commands) });
    shell.add(panel, 'left', { rank: 250, type: 'Agent' });
    restorer?.add(panel, panel.id);
    addCommands({
      app,
      model,
      trans,
      openPanel: () => shell.activateById(panel.id),
      openRun: (id, notebook) => views.open(id, notebook ? 'notebook' : undefined),
      runInFront: () => views.inFront
    });
    for (const command of Object.values(CommandIDs)) {
      palette?.addItem({ command, category: trans.__('Agent') });
    }
    model.runEnded.connect((_, run) => {
      if (views.isVisible(run.id)) {
        return;
      }
      const text = `${title(run)}: ${stateWord(run.state, trans)}. ${run.error ?? ''}`.trim();
      const open = {
        label: trans.__('Open'),
        callback: () => void commands.execute(CommandIDs.openRun, { id: run.id })
      };
      const good = toneOf(run.state) === 'good';
      Notification.emit(text, good ? 'success' : 'warning', { autoClose: good ? 5000 : false, actions: [open] });
    });
  }
};

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

export default [modelPlugin, viewsPlugin, panelPlugin, statusPlugin, runningPlugin];
