// Unpack the arrays of pack.py.

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const buffer = await new Response(stream).arrayBuffer();
  const kind = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array }[packed.type];
  return new kind(buffer);
}

// The index-th [query, key] matrix in an unpacked array of weights, as fractions, row by row.
function matrixAt(whole, index, rows, columns, causal) {
  const scale = whole instanceof Uint8Array ? 255 : 65535;
  const weights = new Float32Array(rows * columns);
  let at = index * (causal ? (rows * (rows + 1)) / 2 : rows * columns);
  for (let query = 0; query < rows; query++) {
    const end = causal ? query + 1 : columns;
    for (let key = 0; key < end; key++) weights[query * columns + key] = whole[at++] / scale;
  }
  return weights;
}
