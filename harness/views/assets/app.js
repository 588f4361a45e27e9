// What is shown now, and who wants to know when it changes.

function makeState(data, effects, claims) {
  const listeners = {};
  const tell = (event) => (listeners[event] || []).forEach((listen) => listen());
  const slots = new Map(data.slots.map((head, index) => [named(head), index]));
  const unpacked = {};
  const place = ([layer, head]) => data.layers.indexOf(layer) * data.heads.length + data.heads.indexOf(head);
  const count = data.layers.length * data.heads.length;
  data.metrics.forEach((metric, index) => {
    metric.values = effects[index];
    metric.means = meansOf(effects[index], count, data.prompts.length);
    metric.tested = claims[index].subarray(2 * count).some(Number.isFinite);
  });
  const state = {
    data,
    leftOut: data.leftOut || '',
    metricIndex: Math.max(0, data.metrics.findIndex((metric) => metric.name === data.start.metric)),
    prompt: data.start.prompt,
    head: data.start.head || [data.layers[0] || 0, data.heads[0] || 0],
    on: (event, listen) => (listeners[event] ||= []).push(listen),
    tell,
    metric: () => data.metrics[state.metricIndex],
    tokens: () => data.prompts[state.prompt].tokens,
    meanOf: (metric, head) => metric.means[place(head)],
    claimOf: (metric, head) => {
      const [low, high, p] = [0, 1, 2].map((row) => claims[data.metrics.indexOf(metric)][row * count + place(head)]);
      return { low, high, p, doubtful: p >= data.level, sure: p < data.level };
    },
    effectsOf: (metric, head) => data.prompts.map((_, prompt) => metric.values[prompt * count + place(head)]),
    topHead: () => (data.metrics.length && state.metric().strongest.length ? state.metric().strongest[0].head : state.head),
    setMetric: (index) => { state.metricIndex = index; tell('metric'); },
    setPrompt: (prompt) => { state.prompt = prompt; tell('prompt'); },
    open: (head, prompt = null, jump = true) => {
      state.head = head;
      if (prompt !== null && prompt !== state.prompt) state.setPrompt(prompt);
      tell('head');
      const title = document.getElementById('picked');
      if (jump && title) { title.focus({ preventScroll: true }); title.closest('section').scrollIntoView(); }
    },
    matrices: async () => {
      const packed = data.patterns[state.prompt], size = state.tokens().length;
      if (!packed) return null;
      const arrays = await (unpacked[state.prompt] ||= Promise.all([unpack(packed.heads), unpack(packed.rollout), unpack(packed.mean)]));
      return {
        of: (head) => (slots.has(named(head)) ? matrixAt(arrays[0], slots.get(named(head)), size, data.causal) : null),
        rollout: matrixAt(arrays[1], 0, size, data.causal),
        mean: matrixAt(arrays[2], 0, size, data.causal),
      };
    },
  };
  return state;
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
  const all = (name) => Promise.all(data.metrics.map((metric) => unpack(metric[name])));
  const state = makeState(data, await all('effect'), await all('claims'));
  const mounts = { map: mountMap, strips: mountStrips, compare: mountCompare, head: mountHead };
  for (const [name, mount] of Object.entries(mounts)) {
    const place = document.getElementById('draw-' + name);
    if (place) mount(place, state);
  }
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => state.tell('colors'));
  document.documentElement.dataset.ready = 'true';
}

main();
