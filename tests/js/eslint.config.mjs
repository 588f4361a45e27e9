// The page's code is one script, joined from harness/views/assets; `test_page_code.py` runs this on it.
import js from '@eslint/js';

const browser = [
  'atob', 'Blob', 'clearInterval', 'DecompressionStream', 'document', 'Event', 'getComputedStyle', 'history', 'HTMLCanvasElement',
  'HTMLImageElement', 'Image', 'location', 'navigator', 'Node', 'requestAnimationFrame', 'ResizeObserver', 'Response', 'setInterval',
  'setTimeout', 'SVGSVGElement', 'SVGTextContentElement', 'URL', 'URLSearchParams', 'window', 'XMLSerializer', 'clearTimeout',
  'IntersectionObserver', 'MutationObserver', 'TextDecoder', 'KeyboardEvent', 'FileReader', 'CircuitsVis', 'innerWidth', 'innerHeight', 'matchMedia', 'HTMLElement', 'cancelAnimationFrame', 'performance', 'queueMicrotask',
];

export default [
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: 'script', globals: Object.fromEntries(browser.map((name) => [name, 'readonly'])) },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'no-undef': 'error',
      'no-unused-vars': ['error', { args: 'after-used', argsIgnorePattern: '^_', caughtErrors: 'none' }],
      'no-eval': 'error',
      'no-implied-eval': 'error',
      'no-new-func': 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      eqeqeq: 'error',
      'no-shadow-restricted-names': 'error',
    },
  },
];
