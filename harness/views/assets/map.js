// Layers × heads, coloured by effect; a button for each head. Arrow keys move, Enter opens.

function mountMap(place, state) {
  const narrow = window.matchMedia('(max-width: 820px)');
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const holder = make('div', { class: 'scroll' });
  const legend = make('div', { class: 'legend' });
  place.append(metricSwitch(state), legend, holder, readout);
  const draw = () => {
    const metric = state.metric();
    const most = metric.means.reduce((most, mean) => (Math.abs(mean) > most ? Math.abs(mean) : most), 0);
    holder.replaceChildren(mapTable(state, metric, most, narrow.matches, readout));
    legend.replaceChildren(...legendOf(metric, most), ...(metric.tested ? [make('span', {}, make('b', { class: 'sure' }), 'max-T p < ' + state.data.level)] : []));
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
  const set = make('fieldset', {}, make('legend', {}, 'Metric'));
  state.data.metrics.forEach((metric, index) => {
    const input = make('input', { type: 'radio', name: 'metric', value: index, onchange: () => state.setMetric(index) });
    input.checked = index === state.metricIndex;
    state.on('metric', () => { input.checked = index === state.metricIndex; });
    set.append(make('label', {}, input, make('span', {}, metric.name)));
  });
  return make('div', { class: 'controls' }, set);
}

function mapTable(state, metric, most, tall, readout) {
  const { layers, heads } = state.data;
  const [rows, columns] = tall ? [layers, heads] : [heads, layers];
  const headOf = (row, column) => (tall ? [row, column] : [column, row]);
  const prefix = tall ? ['L', 'H'] : ['H', 'L'];
  const label = 'Effect of each head on ' + metric.name + ': ' + (tall ? 'layers down, heads across' : 'heads down, layers across');
  const table = make('table', { class: 'map' + (columns.length < 14 && !tall ? ' few' : ''), role: 'grid', 'aria-label': label });
  table.append(make('thead', {}, make('tr', {}, make('th', { scope: 'row' }), ...columns.map((column) => make('th', { scope: 'col' }, prefix[1] + column)))));
  const body = make('tbody');
  for (const row of rows) {
    const cells = columns.map((column) => make('td', {}, headButton(state, metric, most, headOf(row, column), readout)));
    body.append(make('tr', {}, make('th', { scope: 'row' }, prefix[0] + row), ...cells));
  }
  table.append(body);
  rove(table, columns.length, named(state.head));
  return table;
}

function headButton(state, metric, most, head, readout) {
  const mean = state.meanOf(metric, head);
  const known = Number.isFinite(mean);
  const says = named(head) + (known ? ' ' + verdict(metric, mean) + ': mean effect ' + withUnit(mean, metric) + claimText(state, metric, head) : ': not ablated');
  const button = make('button', {
    type: 'button', class: (known ? verdict(metric, mean) : 'unknown') + (state.claimOf(metric, head).sure ? ' sure' : ''), 'aria-label': says, 'data-head': named(head), tabindex: -1,
    onclick: () => state.open(head), onpointerenter: () => { readout.textContent = says; }, onfocus: () => { readout.textContent = says; },
  });
  if (known) button.style.setProperty('--share', most ? Math.abs(mean) / most : 0);
  return button;
}

// One stop for Tab; the arrow keys move inside.
function rove(table, columns, start) {
  const buttons = [...table.querySelectorAll('button')];
  (buttons.find((button) => button.dataset.head === start) || buttons[0]).tabIndex = 0;
  table.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!step || !next) return;
    event.preventDefault();
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
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
