// The imports among the page's modules.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const FOLDER = new URL("./static/", import.meta.url);
const PAGES = ["app.js", "operate.js"];

const modules = readdirSync(FOLDER).filter((name) => name.endsWith(".js"));
const imports = new Map(
  modules.map((name) => {
    const source = readFileSync(new URL(name, FOLDER), "utf8");
    return [name, [...source.matchAll(/^(?:import|\} from) .*?"\.\/(.+?)";$/gm)].map(([, imported]) => imported)];
  }),
);

/** @type {(name: string, path?: string[]) => string[]} a module and all modules that it imports; fails on a cycle */
function reach(name, path = []) {
  assert.ok(!path.includes(name), `an import cycle: ${[...path, name].join(" -> ")}`);
  return [name, ...(imports.get(name) ?? []).flatMap((imported) => reach(imported, [...path, name]))];
}

test("imports have no cycle, and a page needs each module", () => {
  assert.deepEqual([...new Set(PAGES.flatMap((name) => reach(name)))].sort(), modules.sort());
});
