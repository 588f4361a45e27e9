// One bar of controls for all pictures of a prompt.

function mountControls(place, state) {
  const { layers, prompts, heads: numbers } = state.data.offered, { stacks } = state.data;
  const picks = make('div', { class: 'controls' });
  const prompt = promptSelect(state), view = viewControls(state);
  const fill = () => {
    if (!stacks.length) return;
    const here = layers || state.stack(state.head[2]).layers;
    const choices = [
      ['Stack', layers ? [] : stacks.map(({ name }) => [name, name]), 2],
      ['Layer', here.map((value) => [value, 'Layer ' + value]), 0],
      ['Head', (numbers || state.data.heads).map((value) => [value, 'Head ' + value]), 1],
    ].filter(([, options]) => options.length > 1);
    picks.replaceChildren(...(prompts.length > 1 ? [prompt.label] : []), ...choices.map(([name, options, at]) => {
      const { box, label } = select(name, options, (value) => state.open(moved(state, at, at === 2 ? value : Number(value)), null, false));
      box.value = state.head[at];
      return label;
    }), ...view);
  };
  state.on('head', () => {
    const name = picks.contains(document.activeElement) && document.activeElement.dataset.name;
    fill();
    if (name) picks.querySelector('[data-name="' + name + '"]').focus();
  });
  fill();
  const note = make('p', { class: 'note', role: 'status' });
  state.on('view', () => { note.textContent = viewNote(state); });
  place.append(picks, note);
}

// The picked head with another stack, layer or number; a stack that has fewer layers gives its last.
function moved(state, at, value) {
  const head = [...state.head];
  head[at] = value;
  head[0] = Math.min(head[0], Math.max(...state.stack(head[2]).layers));
  return head;
}

function promptSelect(state) {
  const options = state.data.offered.prompts.map((index) => [index, index + ': ' + cut(textOf(state.data.prompts[index]), 90)]);
  const prompt = select('Prompt', options, (value) => state.setPrompt(Number(value)));
  const sync = () => { prompt.box.value = state.prompt; };
  state.on('prompt', sync);
  sync();
  return prompt;
}

// The prompt's text, with its answers.
function textOf({ words, source }) {
  return source ? source.words.join(' ') + ' → ' + words.join(' ') : words.join(' ');
}

// Tokens or words, special tokens or not, the first token of a causal model or not, one sentence's view of another: each
// offered where some prompt has them.
function viewControls(state) {
  const sides = state.data.prompts.flatMap((prompt) => (prompt.source ? [prompt, prompt.source] : [prompt]));
  const made = [];
  if (sides.some((side) => side.words.length < side.tokens.length)) {
    made.push(radios('By', [['token', 'tokens'], ['word', 'words']], state.view.level, (level) => state.setView({ level })));
  }
  if (sides.some((side) => side.special.length)) {
    made.push(radios('Special tokens', [[true, 'all tokens'], [false, 'no special']], state.view.special, (special) => state.setView({ special })));
  }
  if (state.data.stacks.some(({ causal }) => causal)) {
    made.push(radios('Sink', [[true, 'with sink'], [false, 'hide sink']], state.view.sink, (sink) => state.setView({ sink })));
  }
  if (sides.some((side) => side.second.length)) {
    const parts = ['all', 'AA', 'AB', 'BA', 'BB'].map((part) => [part, part === 'all' ? 'both sentences' : part[0] + ' looks at ' + part[1]]);
    made.push(select('Sentences', parts, (part) => state.setView({ part })).label);
  }
  const sync = () => {
    const chosen = { By: state.view.level, 'Special tokens': state.view.special, Sink: state.view.sink };
    for (const set of made) for (const input of set.querySelectorAll('input')) input.checked = String(chosen[set.dataset.name]) === input.dataset.value;
  };
  state.on('view', sync);
  return made;
}

// How the weights were changed before they are shown, in words; empty if they were not.
function viewNote(state) {
  const { level, special, part, sink } = state.view, notes = [];
  if (level === 'word') notes.push('Words: weights are summed over the tokens looked at and averaged over those that look.');
  if (!special) notes.push('Special tokens are hidden, and what is left of each row is made to sum to 1 again.');
  if (!sink) notes.push('The first token (the attention sink) is hidden, and what is left of each row is made to sum to 1 again.');
  if (part !== 'all') notes.push('Only what sentence ' + part[0] + ' sees of sentence ' + part[1] + ': rows do not sum to 1.');
  return notes.join(' ');
}

function select(name, options, changed) {
  const box = make('select', { 'data-name': name, onchange: (event) => changed(event.target.value) });
  for (const [value, text] of options) box.append(make('option', { value }, text));
  return { box, label: make('label', {}, name, box) };
}

let groups = 0;
function radios(name, options, chosen, changed) {
  const group = 'group' + groups++;
  const set = make('fieldset', { 'data-name': name }, make('legend', {}, name));
  options.forEach(([value, text], index) => {
    const input = make('input', { type: 'radio', name: group, value: index, 'data-value': value, onchange: () => changed(value) });
    input.checked = value === chosen;
    set.append(make('label', {}, input, make('span', {}, text)));
  });
  return set;
}
