// The state that all pictures share, and the listeners for its changes.

function makeState(data, arrays) {
  const listeners = {};
  const tell = (event) => (listeners[event] || []).forEach((listen) => listen());
  const place = placesOf(data), count = place.count;
  data.metrics.forEach((metric, index) => {
    Object.assign(metric, arrays[index]);
    metric.means = meansOf(metric.effect, count, data.prompts.length);
    metric.tested = metric.claims.subarray(2 * count).some(Number.isFinite);
  });
  const state = {
    data,
    leftOut: data.leftOut || '',
    metricIndex: Math.max(0, data.metrics.findIndex((metric) => metric.name === data.start.metric)),
    prompt: data.start.prompt,
    head: data.start.head || [0, data.heads[0] || 0, data.stacks.length ? data.stacks[0].name : ''],
    view: { level: data.start.level || 'token', special: true, part: 'all' },
    place,
    on: (event, listen) => (listeners[event] ||= []).push(listen),
    tell,
    stack: (name) => data.stacks.find((stack) => stack.name === name),
    metric: () => data.metrics[state.metricIndex],
    tokens: () => data.prompts[state.prompt].tokens,
    meanOf: (metric, head) => metric.means[place(head)],
    claimOf: (metric, head) => {
      const [low, high, p] = [0, 1, 2].map((row) => metric.claims[row * count + place(head)]);
      return { low, high, p, shown: !metric.tested || p < data.level };
    },
    effectsOf: (metric, head) => data.prompts.map((_, prompt) => metric.effect[prompt * count + place(head)]),
    topHead: () => (data.metrics.length && state.metric().strongest.length ? state.metric().strongest[0].head : state.head),
    setMetric: (index) => { state.metricIndex = index; tell('metric'); },
    setView: (change) => { Object.assign(state.view, change); tell('view'); },
    setPrompt: (prompt) => { state.prompt = prompt; tell('prompt'); },
    open: (head, prompt = null, jump = true) => {
      state.head = head;
      if (prompt !== null && prompt !== state.prompt) state.setPrompt(prompt);
      tell('head');
      const title = document.getElementById('picked');
      if (jump && title) { title.focus({ preventScroll: true }); title.closest('section').scrollIntoView(); }
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

async function main() {
  document.documentElement.classList.add('js');
  const data = JSON.parse(document.getElementById('data').textContent);
  const numbers = async (metric) => ({ effect: await unpack(metric.effect), claims: await unpack(metric.claims), direct: metric.direct && (await unpack(metric.direct)) });
  for (const role of data.roles) role.scores = await unpack(role.scores);
  const state = makeState(data, await Promise.all(data.metrics.map(numbers)));
  const mounts = {
    map: mountMap, strips: mountStrips, controls: mountControls, head: mountHead, headview: mountHeadView,
    modelview: mountModelView, compare: mountCompare, sources: mountSources,
  };
  const drawn = Object.entries(mounts).map(([name, mount]) => {
    const place = document.getElementById('draw-' + name);
    return place && mount(place, state);
  });
  mountTables();
  mountCharts(state);
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => state.tell('colors'));
  await Promise.all(drawn);  // patterns are unpacked first
  document.documentElement.dataset.ready = 'true';
}

main();
