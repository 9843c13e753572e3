// Rules for labextension/. The tools live here, with the browser tests, so that building the wheel fetches none.
import js from '@eslint/js';
import hooks from 'eslint-plugin-react-hooks';
import typescript from 'typescript-eslint';

export default typescript.config(
  js.configs.recommended,
  typescript.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: { project: ['tsconfig.json', 'test/tsconfig.json'], tsconfigRootDir: process.cwd() }
    },
    plugins: { 'react-hooks': hooks },
    rules: {
      ...hooks.configs.recommended.rules,
      '@typescript-eslint/consistent-type-imports': 'error',
      // Lab's plugins and tokens are an interface and a value of one name.
      '@typescript-eslint/no-redeclare': 'off',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      // What comes over the network may be other than its type says.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // Lab's interfaces ask for promises where ours have nothing to wait for.
      '@typescript-eslint/require-await': 'off',
      // Lumino's signals take the method and its object apart.
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'max-lines': ['error', 700],
      'max-lines-per-function': ['error', { max: 80, skipComments: true, skipBlankLines: true }]
    }
  },
  {
    files: ['test/**'],
    rules: { 'max-lines-per-function': 'off', '@typescript-eslint/no-misused-spread': 'off' }
  }
);
