// Attributions of a prediction: the scores of each method and cause as shaded text, one line each.

function mountSources(place, state) {
  const targets = make('div', { class: 'controls' }), lines = make('div', { class: 'sources' });
  place.append(targets, lines);
  let target = null, latest = 0;
  const draw = whenShown(place, state, async () => {
    const mine = ++latest, attributions = await state.sources();
    if (mine !== latest) return;
    if (!attributions) { targets.replaceChildren(); lines.replaceChildren(make('p', {}, 'This page does not hold the scores of prompt ' + state.prompt + '. ' + state.leftOut)); return; }
    const side = state.data.prompts[state.prompt];
    if (!attributions.targets.includes(target)) target = attributions.targets[attributions.targets.length - 1];
    const box = select('Prediction made at', attributions.targets.map((at) => [at, at + ': after “' + cut(side.tokens[at] || '', 20) + '”']), (value) => { target = Number(value); draw(); });
    box.box.value = target;
    targets.replaceChildren(...(attributions.targets.length > 1 ? [box.label] : []));
    const texts = textsOf(side, state.view);
    const scored = (row) => texts.map(({ tokens, of }) => tokens.map((unit) => ({ ...unit, score: attributions.score(row, target, unit, of) })));
    const made = attributions.names.map((name, row) => ({ name, cause: attributions.isCause(row), texts: scored(row) }));
    lines.replaceChildren(...byAgreement(made).map(sourceLine));
  });
  for (const event of ['prompt', 'view']) state.on(event, draw);
  return draw();
}

// The source (if there is one) and the prompt's own text, in tokens or words.
function textsOf(side, view) {
  return [...(side.source ? [{ tokens: units(side.source, view, null), of: 'source' }] : []), { tokens: units(side, view, null), of: 'scores' }];
}

// The scores of the prompt that is shown. A word's is the sum of its tokens'; NaN where there is none.
function sourcesOf(state) {
  const unpacked = {};
  return async () => {
    const packed = state.data.sources[state.prompt];
    if (!packed || !packed.targets.length) return null;
    const [scores, source] = await (unpacked[state.prompt] ||= Promise.all([unpack(packed.scores), packed.source && unpack(packed.source)]));
    const arrays = { scores, source }, rows = packed.names.length * packed.targets.length;
    const score = (row, target, { at }, of) => {
      const width = arrays[of].length / rows, start = (row * packed.targets.length + packed.targets.indexOf(target)) * width;
      return at.reduce((sum, position) => sum + arrays[of][start + position], 0);
    };
    return { ...packed, score, isCause: (row) => row >= packed.methods };
  };
}

// Causes first, then the methods by their rank correlation with the first cause on this prompt, the best first.
function byAgreement(lines) {
  const causes = lines.filter(({ cause }) => cause), methods = lines.filter(({ cause }) => !cause);
  if (!causes.length) return methods;
  const flat = ({ texts }) => texts.flat().map(({ score }) => score);
  for (const method of methods) method.rho = spearman(flat(method), flat(causes[0]));
  const known = (rho) => (Number.isFinite(rho) ? rho : -2);
  for (const method of methods) method.against = causes[0].name;
  return [...causes, ...methods.sort((a, b) => known(b.rho) - known(a.rho))];
}

// Spearman's rank correlation over the entries that both have; NaN with fewer than three, or where one is constant.
function spearman(first, second) {
  const both = first.map((_, at) => at).filter((at) => Number.isFinite(first[at]) && Number.isFinite(second[at]));
  if (both.length < 3) return NaN;
  const [a, b] = [ranks(both.map((at) => first[at])), ranks(both.map((at) => second[at]))], mean = (both.length - 1) / 2;
  let [ab, aa, bb] = [0, 0, 0];
  a.forEach((rank, at) => { ab += (rank - mean) * (b[at] - mean); aa += (rank - mean) ** 2; bb += (b[at] - mean) ** 2; });
  return aa && bb ? ab / Math.sqrt(aa * bb) : NaN;
}

// Ranks from 0, equal values with their mean rank.
function ranks(values) {
  const order = values.map((_, at) => at).sort((a, b) => values[a] - values[b]), made = [];
  for (let from = 0; from < order.length; ) {
    let to = from;
    while (to + 1 < order.length && values[order[to + 1]] === values[order[from]]) to++;
    for (let at = from; at <= to; at++) made[order[at]] = (from + to) / 2;
    from = to + 1;
  }
  return made;
}

// The shade is the share of the line's largest score.
function sourceLine({ name, cause, texts, rho, against }) {
  const most = largest(texts.flat().map(({ score }) => score).filter(Number.isFinite));
  const shown = texts.map((tokens) => make('p', { class: 'tokens' }, ...tokens.map(({ text, score }) => {
    const token = make('bdi', { class: score < 0 ? 'against' : 'for', title: Number.isFinite(score) ? plain(score) : 'not scored' }, text);
    token.style.setProperty('--share', Number.isFinite(score) && most ? Math.abs(score) / most : 0);
    return token;
  })));
  const agrees = rho === undefined ? '' : Number.isFinite(rho) ? ' · ρ ' + fixed(rho, 2) + ' with ' + against + ' here' : ' · ρ undefined';
  return make('div', { class: 'source' + (cause ? ' cause' : '') }, make('h3', {}, name + (cause ? ' (cause)' : ''), make('small', {}, ' darkest: ' + plain(most) + agrees)), ...shown);
}
