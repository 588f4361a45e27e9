// Layers × heads, coloured by effect; a button for each head. Arrow keys move, Enter opens.

// With more scores than this, a list replaces the buttons.
const FEW_SCORES = 4;

function mountMap(place, state) {
  const narrow = window.matchMedia('(max-width: 820px)');
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const holder = make('div', { class: 'scroll maps' });
  const legend = make('div', { class: 'legend' });
  const scores = scoresOf(state);
  let score = scores[0];
  const controls = make('div', { class: 'controls' }, ...metricSwitch(state), legend);
  const show = (each) => { score = each; draw(); mark(); };
  if (scores.length > FEW_SCORES) controls.insertBefore(select('Show', scores.map((each, at) => [at, each.name]), (at) => show(scores[at])).label, legend);
  else if (scores.length > 1) controls.insertBefore(radios('Show', scores.map((each) => [each, each.name]), score, show), legend);
  place.append(controls, holder, readout);
  const draw = () => {
    const shown = score.of(state.metric());
    const most = Math.max(largest(shown.means), ...shown.beside.map(({ means }) => largest(Object.values(means).flat())));
    holder.replaceChildren(...state.data.stacks.map((stack) => mapTable(state, stack, shown, most, narrow.matches, readout)));
    rove(holder, named(state.head));
    legend.replaceChildren(...legendOf(shown, most), ...(shown.tested ? [make('span', {}, make('b', { class: 'sure' }), 'max-T p < ' + state.data.level)] : []));
    readout.textContent = 'Hover or move with the arrow keys to read a head; click or press Enter to open it.';
  };
  const mark = () => {
    for (const button of holder.querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(button.dataset.head === named(state.head)));
    }
  };
  narrow.addEventListener('change', () => { draw(); mark(); });
  state.on('metric', () => { draw(); mark(); });
  state.on('head', mark);
  draw();
  mark();
}

function metricSwitch(state) {
  if (state.data.metrics.length < 2) return [];
  const set = make('fieldset', {}, make('legend', {}, 'Metric'));
  state.data.metrics.forEach((metric, index) => {
    const input = make('input', { type: 'radio', name: 'metric', value: index, onchange: () => state.setMetric(index) });
    input.checked = index === state.metricIndex;
    state.on('metric', () => { input.checked = index === state.metricIndex; });
    set.append(make('label', {}, input, make('span', {}, metric.name)));
  });
  return [set];
}

// A stack's heads, and below them the effects of its whole layers and their MLPs, on the same scale of colours.
function mapTable(state, stack, metric, most, tall, readout) {
  const { layers, name } = stack, { heads } = state.data;
  const lines = [
    ...heads.map((head) => ({ label: 'H' + head, cell: (layer) => headButton(state, metric, most, [layer, head, name], readout) })),
    ...metric.beside.filter(({ means }) => means[name]).map((each) => ({ label: each.short, apart: true, cell: (layer) => layerCell(metric, most, each, stack, layer, readout) })),
  ];
  const [across, down] = tall ? [lines, layers] : [layers, lines];
  const title = (one) => (one.label === undefined ? 'L' + one : one.label);
  const cellOf = (row, column) => (tall ? column.cell(row) : row.cell(column));
  const what = 'Each head' + (name ? ' of the ' + name + ' stack' : '') + ', ' + metric.score + ': ' + (tall ? 'layers down, heads across' : 'heads down, layers across');
  const table = make('table', { class: 'map' + (across.length < 14 && !tall ? ' few' : ''), role: 'grid', 'aria-label': what });
  if (name) table.append(make('caption', {}, name));
  table.append(make('thead', {}, make('tr', {}, make('td'), ...across.map((one) => make('th', { scope: 'col' }, title(one))))));
  const body = make('tbody');
  for (const row of down) {
    const cells = across.map((column) => make('td', {}, cellOf(row, column)));
    body.append(make('tr', { class: row.apart ? 'apart' : null }, make('th', { scope: 'row' }, title(row)), ...cells));
  }
  table.append(body);
  return table;
}

function headButton(state, metric, most, head, readout) {
  const mean = metric.means[state.place(head)];
  const known = Number.isFinite(mean), sure = metric.tested && state.claimOf(metric, head).shown;
  const word = metric.role ? '' : ' ' + verdict(state, metric, head);
  const label = named(head) + (known ? word + ': ' + metric.score + ' ' + withUnit(mean, metric) + (metric.tested ? claimText(state, metric, head) : '') : metric.role ? ': no score as ' + metric.name : ': not ablated');
  const button = make('button', {
    type: 'button', class: (known ? sideClass(metric, mean) : 'unknown') + (sure ? ' sure' : ''), 'aria-label': label, 'data-head': named(head), tabindex: -1,
    onclick: () => state.open(head), onpointerenter: () => { readout.textContent = label; }, onfocus: () => { readout.textContent = label; },
  });
  if (known) button.style.setProperty('--share', most ? Math.abs(mean) / most : 0);
  return button;
}

function layerCell(metric, most, each, { name, layers }, layer, readout) {
  const mean = each.means[name][layers.indexOf(layer)], known = mean !== null;
  const label = (name ? name + '.' : '') + 'L' + layer + ', ' + each.name + (known ? ': mean effect ' + withUnit(mean, metric) : ': not ablated');
  const cell = make('span', { class: 'layer ' + (known ? sideClass(metric, mean) : 'unknown'), role: 'img', 'aria-label': label, title: label, onpointerenter: () => { readout.textContent = label; } });
  if (known) cell.style.setProperty('--share', most ? Math.abs(mean) / most : 0);
  return cell;
}

// One tab stop; the arrow keys move between cells.
function rove(holder, start) {
  const buttons = [...holder.querySelectorAll('button')];
  if (!buttons.length) return;
  (buttons.find((button) => button.dataset.head === start) || buttons[0]).tabIndex = 0;
  const rows = [...holder.querySelectorAll('tbody tr')].map((row) => [...row.querySelectorAll('button')]).filter((row) => row.length);
  holder.onkeydown = (event) => {
    const move = step(event);
    if (!move) return;
    const down = rows.findIndex((row) => row.includes(document.activeElement));
    const row = rows[down + move[0]] || [];
    const next = row[(rows[down] || []).indexOf(document.activeElement) + move[1]];
    if (!next) return;
    event.preventDefault();
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
}

function legendOf(metric, most) {
  const ramp = (from, to) => {
    const bar = make('i');
    bar.style.background = 'linear-gradient(90deg in oklab, var(--' + from + '), var(--' + to + '))';
    return bar;
  };
  const end = plain(most) + (metric.unit ? ' ' + metric.unit : '');
  if (metric.sense === 0) return ['0', ramp('neutral', 'matters'), end];
  const helps = metric.sense > 0 ? '+' : '−', hurts = metric.sense > 0 ? '−' : '+';
  return ['helps (' + helps + end + ')', ramp('helps', 'neutral'), '0', ramp('neutral', 'hurts'), 'hurts (' + hurts + end + ')'];
}
