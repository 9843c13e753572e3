// Answers questions on stdin with mingo, one JSON text per line each way.
// A date travels as {"$date": ms}, what is undefined as {"$undefined": true}.
import { createInterface } from 'node:readline';
import { aggregate, find, update } from 'mingo';

const REGEXP = /^__REGEXP \/(.*)\/([a-z]*)$/s;

function taken(value) {
  if (typeof value === 'string') {
    const found = REGEXP.exec(value);
    return found ? new RegExp(found[1], found[2]) : value;
  }
  if (Array.isArray(value)) return value.map(taken);
  if (value === null || typeof value !== 'object') return value;
  if ('$date' in value) return new Date(value.$date);
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, taken(item)]));
}

function told(value) {
  if (value === undefined) return { $undefined: true };
  if (value instanceof Date) return { $date: value.getTime() };
  if (Array.isArray(value)) return Array.from(value, told);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, told(item)]));
}

const answers = {
  find: ({ documents, query }) => find(documents, query).all().map((each) => each._id),
  page: ({ documents, sort, skip, limit, projection }) => {
    let found = find(documents, {}, projection ?? {});
    if (sort) found = found.sort(sort);
    return found.skip(skip).limit(limit).all();
  },
  update: ({ document, change }) => {
    update(document, change);
    return document;
  },
  aggregate: ({ documents, other, stages }) =>
    aggregate(documents, stages, { collectionResolver: () => other }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  let answer;
  try {
    answer = { result: told(answers[question.ask](taken(question.about))) };
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
