// The keyboard: one letter for each thing that is done often.

const HELP = [
  ['← →', 'the head in the layer before or after'],
  ['↑ ↓', 'the head before or after in the layer'],
  ['[ ]', 'the prompt before or after'],
  ['w', 'tokens or words'],
  ['s', 'show or hide the attention sink'],
  ['l', 'matrix or lines'],
  ['p', 'pin this head and prompt to compare with'],
  ['/', 'go to a head or prompt'],
  ['?', 'this list'],
];

function mountKeys(state) {
  if (!document.getElementById('draw-inspector')) return;
  const actions = {
    '[': () => stepPrompt(state, -1),
    ']': () => stepPrompt(state, 1),
    w: () => state.setView({ level: state.view.level === 'word' ? 'token' : 'word' }),
    s: () => state.setView({ sink: !state.view.sink }),
    l: () => state.set('how', state.how === 'lines' ? 'matrix' : 'lines'),
    p: () => pinHere(state),
    '/': () => { const box = document.getElementById('search'); if (box) box.focus(); },
    '?': () => showHelp(),
  };
  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target;
    if (on.closest('input:not([type=radio]), select, textarea, dialog')) return;
    const by = step(event);
    if (by) {
      if (on.closest('[role=listbox], [role=img], .tall, .scroll:not(.maps), input')) return;
      event.preventDefault();
      return stepHead(state, by);
    }
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  });
}

// The head beside the picked one: the layer across and the number down, as on the map; where layers stand below each
// other, the other way about.
function stepHead(state, [down, across]) {
  const { layers, name } = state.stack(state.head[2]), { heads } = state.data;
  const tall = !!document.querySelector('.map.tall-map');
  const [layer, number] = tall ? [state.head[0] + down, heads.indexOf(state.head[1]) + across] : [state.head[0] + across, heads.indexOf(state.head[1]) + down];
  if (layers.includes(layer) && heads[number] !== undefined) state.open([layer, heads[number], name], null, false);
}

function stepPrompt(state, by) {
  const { prompts } = state.data.offered, next = prompts[prompts.indexOf(state.prompt) + by];
  if (next !== undefined) state.setPrompt(next);
}

function showHelp() {
  const rows = HELP.flatMap(([keys, what]) => [make('dt', {}, ...keys.split(' ').map((key) => make('kbd', {}, key))), make('dd', {}, what)]);
  const close = make('button', { type: 'button', class: 'tool', onclick: () => dialog.close() }, 'Close');
  const dialog = make('dialog', { 'aria-label': 'Keys' }, make('h2', {}, 'Keys'), make('dl', {}, ...rows), close);
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
