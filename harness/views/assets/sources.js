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
    lines.replaceChildren(...attributions.names.map((name, row) => sourceLine(name, attributions.isCause(row), scored(row))));
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

// The shade is the share of the line's largest score.
function sourceLine(name, cause, texts) {
  const most = largest(texts.flat().map(({ score }) => score).filter(Number.isFinite));
  const shown = texts.map((tokens) => make('p', { class: 'tokens' }, ...tokens.map(({ text, score }) => {
    const token = make('bdi', { class: score < 0 ? 'against' : 'for', title: Number.isFinite(score) ? plain(score) : 'not scored' }, text);
    token.style.setProperty('--share', Number.isFinite(score) && most ? Math.abs(score) / most : 0);
    return token;
  })));
  return make('div', { class: 'source' + (cause ? ' cause' : '') }, make('h3', {}, name + (cause ? ' (cause)' : ''), make('small', {}, ' darkest: ' + plain(most))), ...shown);
}
