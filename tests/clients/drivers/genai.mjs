// The @google/genai SDK of Node: `node genai.mjs`.
import { GoogleGenAI } from "@google/genai";
import { method, serve, some, turn } from "./loop.mjs";

async function answer(job) {
  const leaving = new AbortController();
  const httpOptions = { baseUrl: job.base_url };
  // It retries nothing by itself.
  if (job.retries) httpOptions.retryOptions = { attempts: job.retries + 1, initialDelay: 0.01, maxDelay: 0.05, jitter: 0 };
  const client = new GoogleGenAI({ apiKey: job.key, httpOptions });
  if (job.abort) job.args.config = { ...job.args.config, abortSignal: leaving.signal };
  try {
    const value = await method(client, job.call)(job.args);
    if (!value[Symbol.asyncIterator]) return { value: bare(value), headers: headersOf(value) };
    const items = await some(value, job.leave_after, job.abort && (() => leaving.abort()));
    await turn();
    return { items: items.map(bare), headers: headersOf(items[0]) };
  } catch (error) {
    // Whatever it is, a caller sees it.
    return { error: error.constructor.name, status: error.status, message: error.message, headers: {} };
  }
}

function bare({ sdkHttpResponse, ...value }) {
  return value;
}

function headersOf(value) {
  return value?.sdkHttpResponse?.headers ?? {};
}

await serve("@google/genai", answer);
