// The state that all pictures share, and the listeners for its changes.

function makeState(data, arrays) {
  const listeners = {};
  const tell = (event) => (listeners[event] || []).forEach((listen) => listen());
  const place = placesOf(data), count = place.count;
  data.metrics.forEach((metric, index) => {
    Object.assign(metric, arrays[index]);
    metric.means = meansOf(metric.effect, count, data.prompts.length);
    metric.directMeans = metric.direct && meansOf(metric.direct, count, data.prompts.length);
    metric.tested = metric.claims.subarray(2 * count, 3 * count).some(Number.isFinite);
    metric.judged = metric.claims.subarray(3 * count).some(Number.isFinite);
    metric.cleanMean = metric.clean.every((value) => value !== null) ? metric.clean.reduce((sum, value) => sum + value, 0) / metric.clean.length : NaN;
  });
  const state = {
    data,
    leftOut: data.leftOut || '',
    metricIndex: Math.max(0, data.metrics.findIndex((metric) => metric.name === data.start.metric)),
    prompt: data.start.prompt,
    head: data.start.head || [0, data.heads[0] || 0, data.stacks.length ? data.stacks[0].name : ''],
    view: { level: data.start.level || 'token', special: true, part: 'all', sink: true },
    how: 'matrix',      // how the inspector draws a pattern
    row: null,          // the query that is read, by its index among the units; null: the last scored
    pinned: null,       // { head, prompt } to compare with
    score: 'effect',    // what the map shows
    tab: null,
    place,
    on: (event, listen) => (listeners[event] ||= []).push(listen),
    tell,
    stack: (name) => data.stacks.find((stack) => stack.name === name),
    metric: () => data.metrics[state.metricIndex],
    tokens: () => data.prompts[state.prompt].tokens,
    meanOf: (metric, head) => metric.means[place(head)],
    directOf: (metric, head) => (metric.directMeans ? metric.directMeans[place(head)] : NaN),
    claimOf: (metric, head) => {
      const [low, high, p, important] = [0, 1, 2, 3].map((row) => metric.claims[row * count + place(head)]);
      return { low, high, p, important: important === 1, shown: !metric.tested || p < data.level };
    },
    effectsOf: (metric, head) => data.prompts.map((_, prompt) => metric.effect[prompt * count + place(head)]),
    topHead: () => (data.metrics.length && state.metric().strongest.length ? state.metric().strongest[0].head : state.head),
    setMetric: (index) => { state.metricIndex = index; tell('metric'); },
    setView: (change) => { Object.assign(state.view, change); state.row = null; tell('view'); },
    setPrompt: (prompt) => { state.prompt = prompt; state.row = null; tell('prompt'); },
    set: (event, value) => { state[event] = value; tell(event); },  // how, row, pinned, score, tab
    open: (head, prompt = null, jump = true) => {
      state.head = head;
      if (prompt !== null && prompt !== state.prompt) state.setPrompt(prompt);
      tell('head');
      if (jump) tell('opened');
    },
  };
  state.matrices = patternsOf(state);
  state.sources = sourcesOf(state);
  return state;
}

// The index of a head among all: stack by stack, layer by layer.
function placesOf(data) {
  const first = {};
  let count = 0;
  for (const { name, layers } of data.stacks) {
    first[name] = count;
    count += layers.length * data.heads.length;
  }
  const place = ([layer, head, stack]) => first[stack] + layer * data.heads.length + data.heads.indexOf(head);
  place.count = count;
  return place;
}

function meansOf(values, count, prompts) {
  const means = new Float64Array(count);
  for (let head = 0; head < count; head++) {
    for (let prompt = 0; prompt < prompts; prompt++) means[head] += values[prompt * count + head] / prompts;
  }
  return means;
}

// Every head, in the order of `placesOf`.
function headsOf({ data }) {
  return data.stacks.flatMap(({ name, layers }) => layers.flatMap((layer) => data.heads.map((number) => [layer, number, name])));
}

// Draw now where the place can be seen; in a tab that is not open, once it is.
function whenShown(place, state, draw) {
  let due = false;
  const attempt = () => {
    due = state.tab !== null && !place.offsetWidth;
    return due ? null : draw();
  };
  state.on('tab', () => due && attempt());
  return attempt;
}

async function main() {
  document.documentElement.classList.add('js');
  const data = JSON.parse(document.getElementById('data').textContent);
  const numbers = async (metric) => ({ effect: await unpack(metric.effect), claims: await unpack(metric.claims), direct: metric.direct && (await unpack(metric.direct)) });
  for (const role of data.roles) role.scores = await unpack(role.scores);
  const state = makeState(data, await Promise.all(data.metrics.map(numbers)));
  mountTabs(state);
  const mounts = {
    tools: mountTools, map: mountMap, ranking: mountRanking, inspector: mountInspector, controls: mountControls, head: mountHead,
    headview: mountHeadView, modelview: mountModelView, compare: mountCompare, sources: mountSources,
  };
  const drawn = Object.entries(mounts).map(([name, mount]) => {
    const place = document.getElementById('draw-' + name);
    return place && mount(place, state);
  });
  mountTables(state);
  mountCharts(state);
  mountKeys(state);
  followAddress(state);
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => state.tell('colors'));
  await Promise.all(drawn);  // patterns are unpacked first
  document.documentElement.dataset.ready = 'true';
}

main();
