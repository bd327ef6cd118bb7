// What the drivers have in common: a job a line in, an answer a line out (loop.py is the same for Python).
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

/** Say which version this is, then do one job after the other until nobody asks any more. */
export async function serve(name, answer) {
  const about = JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url)));
  write({ version: about.version, node: process.version });
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    write(job.program ? { printed: await printed(job.program, job.environment) } : await answer(job));
  }
}

/** What a program of a file prints. */
async function printed(program, environment = {}) {
  const lines = [];
  const log = console.log;
  console.log = (...words) => lines.push(words.join(" "));
  Object.assign(process.env, environment);
  await import(pathToFileURL(program));
  for (const name in environment) delete process.env[name];
  console.log = log;
  return lines.join("\n");
}

function write(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

/** The method of this name, bound to what it belongs to; it may be several attributes deep. */
export function method(client, call) {
  const names = call.split(".");
  const last = names.pop();
  const owner = names.reduce((found, name) => found[name], client);
  return owner[last].bind(owner);
}

/** The items of a stream or of pages; after `count` of them it is left, with `break` or by aborting it. */
export async function some(stream, count, abort) {
  const items = [];
  try {
    for await (const item of stream) {
      items.push(item);
      if (items.length !== count) continue;
      if (!abort) break;
      abort(); // what has arrived by now may still be given out
    }
  } catch (error) {
    if (!abort || error.name !== "AbortError") throw error; // one SDK raises what was asked for, the others just end
  }
  return items;
}

/** One turn of the event loop, in which what was let go is closed. */
export const turn = () => new Promise((resolve) => setImmediate(resolve));

/** The call's arguments; a `{"base64": ..., "name": ...}` stands for a file. */
export function plain(args) {
  const file = ({ base64, name }) => new File([Buffer.from(base64, "base64")], name);
  return Object.fromEntries(Object.entries(args).map(([key, value]) => [key, value?.base64 ? file(value) : value]));
}
