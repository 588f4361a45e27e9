// Load functions of the page's scripts, which are no modules: their texts are joined and evaluated as in the page.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const assets = join(import.meta.dirname, '..', '..', 'harness', 'views', 'assets');

export function load(files, names) {
  const code = files.map((file) => readFileSync(join(assets, file + '.js'), 'utf8')).join('\n');
  return new Function(`'use strict';\n${code}\nreturn { ${names.join(', ')} };`)();
}
