// Layers × heads, coloured by effect; a button for each head. Arrow keys move, Enter opens.

// A cell with at least this share of the largest score has its number written in it.
const WRITTEN = 0.5;

function mountMap(place, state) {
  const narrow = window.matchMedia('(max-width: 820px)');
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const holder = make('div', { class: 'scroll maps' });
  const legend = make('div', { class: 'legend' });
  const scores = scoresOf(state);
  const score = () => scores.find(({ name }) => name === state.score) || scores[0];
  const controls = make('div', { class: 'controls' }, ...metricSwitch(state), ...scoreSwitch(state, scores));
  const figure = make('div', {}, legend, holder);
  const tools = withFigureTools(figure, { name: () => score().name.replaceAll(' ', '_') + '_of_heads', caption: () => mapCaption(state, score().of(state.metric())), rows: () => mapRows(state, score().of(state.metric())) });
  place.append(controls, figure, make('div', { class: 'foot' }, readout, tools));
  const draw = () => {
    const shown = score().of(state.metric());
    const most = Math.max(largest(shown.means), ...shown.beside.map(({ means }) => largest(Object.values(means).flat())));
    holder.replaceChildren(...state.data.stacks.map((stack) => mapTable(state, stack, shown, most, narrow.matches, readout)));
    legend.replaceChildren(...legendOf(state, shown, most));
    readout.textContent = 'Point at a head to read it; click it, or press the arrow keys, to open it.';
    mark();
  };
  const mark = () => {
    const inside = holder.contains(document.activeElement);
    for (const button of holder.querySelectorAll('button')) {
      const open = button.dataset.head === named(state.head);
      button.setAttribute('aria-pressed', String(open));
      button.tabIndex = open ? 0 : -1;
      if (open && inside) button.focus();
    }
    if (!holder.querySelector('button[tabindex="0"]') && holder.querySelector('button')) holder.querySelector('button').tabIndex = 0;
  };
  narrow.addEventListener('change', draw);
  for (const event of ['metric', 'score', 'colors']) state.on(event, draw);
  state.on('head', mark);
  if (!document.getElementById('draw-inspector')) holder.addEventListener('keydown', (event) => { // a view of its own has no other keys
    const by = step(event);
    if (!by) return;
    event.preventDefault();
    stepHead(state, by);
  });
  draw();
}

function mapCaption(state, metric) {
  const marks = (metric.judged ? ' Rings: important heads.' : '') + (metric.tested ? ' Dots: shown to have an effect (max-T p < ' + state.data.level + ').' : '');
  return 'Mean ' + metric.score + (metric.unit ? ' (' + metric.unit + ')' : '') + ' of each head over ' + state.data.prompts.length + ' prompts. Hatched: hurts.' + marks;
}

function mapRows(state, metric) {
  const heads = headsOf(state);
  return [['head', metric.score], ...heads.map((head) => [named(head), metric.means[state.place(head)]]).filter(([, value]) => Number.isFinite(value))];
}

// What the map shows: effects first, roles in a menu of their own.
function scoreSwitch(state, scores) {
  const roles = scores.filter(({ role }) => role), others = scores.filter(({ role }) => !role);
  const made = [];
  if (others.length > 1) {
    const set = radios('Show', others.map(({ name }) => [name, name]), state.score, (name) => state.set('score', name));
    state.on('score', () => { for (const [at, input] of set.querySelectorAll('input').entries()) input.checked = others[at].name === state.score; });
    made.push(set);
  }
  if (roles.length) {
    const first = others.length ? [['', 'role …']] : [];
    const { box, label } = select('Role', [...first, ...roles.map(({ name }) => [name, name])], (name) => state.set('score', name || others[0].name));
    const sync = () => { box.value = roles.some(({ name }) => name === state.score) ? state.score : first.length ? '' : roles[0].name; };
    state.on('score', sync);
    sync();
    made.push(label);
  }
  return made;
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
  const table = make('table', { class: 'map' + (tall ? ' tall-map' : across.length < 14 ? ' few' : ''), role: 'grid', 'aria-label': what });
  table.style.setProperty('--rows', down.length);
  if (name) table.append(make('caption', {}, name));
  table.append(make('thead', {}, make('tr', {}, make('td'), ...across.map((one) => make('th', { scope: 'col' }, title(one))))));
  if (metric.summed && !tall) table.tHead.prepend(sumsRow(state, metric, stack, readout));
  const body = make('tbody');
  for (const row of down) {
    const cells = across.map((column) => make('td', {}, cellOf(row, column)));
    body.append(make('tr', { class: row.apart ? 'apart' : null }, make('th', { scope: 'row' }, title(row)), ...cells));
  }
  table.append(body);
  return table;
}

// A bar for each layer: the sum of the effects of its heads, one at a time.
function sumsRow(state, metric, { layers, name }, readout) {
  const sums = layers.map((layer) => state.data.heads.reduce((sum, head) => sum + (metric.means[state.place([layer, head, name])] || 0), 0));
  const most = largest(sums);
  const cells = sums.map((sum, at) => {
    const label = (name ? name + '.' : '') + 'L' + layers[at] + ': the single effects of its heads sum to ' + withUnit(sum, metric);
    const bar = make('span', { class: 'sum ' + sideClass(metric, sum), role: 'img', 'aria-label': label, onpointerenter: () => { readout.textContent = label; } });
    bar.style.setProperty('--share', most ? Math.abs(sum) / most : 0);
    return make('td', {}, bar);
  });
  return make('tr', { class: 'sums' }, make('th', { scope: 'row', title: 'sum of single effects, layer by layer' }, 'Σ'), ...cells);
}

function headButton(state, metric, most, head, readout) {
  const mean = metric.means[state.place(head)], claim = metric.claims && state.claimOf(metric, head);
  const known = Number.isFinite(mean), share = known && most ? Math.abs(mean) / most : 0;
  const sure = metric.tested && claim.shown, important = metric.judged && claim.important;
  const roles = state.data.rolesOf[named(head)] || [], has = metric.role && roles.includes(metric.name);
  const word = metric.role ? (has ? ' has the role' : '') : metric.tested ? ' ' + verdict(state, metric, head) + (important ? ', important' : '') : '';
  const score = metric.score + ' ' + withUnit(mean, metric) + (metric.tested ? claimText(state, metric, head) : '');
  const label = named(head) + (known ? word + ': ' + score : metric.role ? ': no score as ' + metric.name : ': not ablated');
  const button = make('button', {
    type: 'button', class: (known ? metric.role ? 'role' : sideClass(metric, mean) : 'unknown') + (sure || has ? ' sure' : '') + (important ? ' important' : ''), 'aria-label': label, 'data-head': named(head), tabindex: -1,
    onclick: () => state.open(head), onpointerenter: () => { readout.textContent = label; }, onfocus: () => { readout.textContent = label; },
  });
  if (known) button.style.setProperty('--share', share);
  if (known && share >= WRITTEN && !metric.role) {
    button.append(make('span', { 'aria-hidden': 'true' }, brief(Math.abs(mean))));
    button.style.color = inkOn(sideClass(metric, mean), share);
  }
  return button;
}

// Black or white, whichever is read better on a tone mixed into the neutral one.
function inkOn(tone, share) {
  const mixed = luminance(color(tone)) * share + luminance(color('neutral')) * (1 - share);
  return (mixed + 0.05) / 0.05 > 1.05 / (mixed + 0.05) ? '#000' : '#fff';
}

function luminance(hex) {
  const [red, green, blue] = hex.match(/\w\w/g).map((part) => parseInt(part, 16) / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function layerCell(metric, most, each, { name, layers }, layer, readout) {
  const mean = each.means[name][layers.indexOf(layer)], known = mean !== null;
  const label = (name ? name + '.' : '') + 'L' + layer + ', ' + each.name + (known ? ': mean effect ' + withUnit(mean, metric) : ': not ablated');
  const cell = make('span', { class: 'layer ' + (known ? sideClass(metric, mean) : 'unknown'), role: 'img', 'aria-label': label, title: label, onpointerenter: () => { readout.textContent = label; } });
  if (known) cell.style.setProperty('--share', most ? Math.abs(mean) / most : 0);
  return cell;
}

function legendOf(state, metric, most) {
  const ramp = (tone, from, to) => {
    const bar = make('i', { class: tone });
    bar.style.background = 'linear-gradient(90deg in oklab, var(--' + from + '), var(--' + to + '))';
    return bar;
  };
  const end = plain(most) + (metric.unit ? ' ' + metric.unit : '');
  const marks = [
    ...(metric.judged ? [make('span', {}, make('b', { class: 'important' }), 'important')] : []),
    ...(metric.tested ? [make('span', {}, make('b', { class: 'sure' }), 'shown: max-T p < ' + state.data.level)] : []),
    ...(metric.role && Object.keys(state.data.rolesOf).length ? [make('span', {}, make('b', { class: 'sure' }), 'has the role')] : []),
  ];
  if (metric.role) return ['0', ramp('', 'neutral', 'attention'), end, ...marks];
  if (metric.sense === 0) return ['0', ramp('', 'neutral', 'matters'), end, ...marks];
  const helps = metric.sense > 0 ? '+' : '−', hurts = metric.sense > 0 ? '−' : '+';
  return [helps + end + ' helps', ramp('', 'helps', 'neutral'), '0', ramp('hurts', 'neutral', 'hurts'), hurts + end + ' hurts', ...marks];
}
