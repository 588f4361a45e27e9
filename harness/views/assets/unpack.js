// What pack.py packed, back to numbers.

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const buffer = await new Response(stream).arrayBuffer();
  const kind = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array }[packed.type];
  return new kind(buffer);
}

// The index-th [query, key] matrix in an unpacked array of weights, as fractions, row by row.
function matrixAt(whole, index, size, causal) {
  const scale = whole instanceof Uint8Array ? 255 : 65535;
  const weights = new Float32Array(size * size);
  let at = index * (causal ? (size * (size + 1)) / 2 : size * size);
  for (let query = 0; query < size; query++) {
    const last = causal ? query : size - 1;
    for (let key = 0; key <= last; key++) weights[query * size + key] = whole[at++] / scale;
  }
  return weights;
}
