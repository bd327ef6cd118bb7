// The openai and @anthropic-ai/sdk SDKs of Node, which are of one make: `node stainless.mjs openai`.
import { method, plain, serve, some, turn } from "./loop.mjs";

// Where the helpers for streams keep what they made of all events.
const FINAL = { message: "finalMessage", completion: "finalChatCompletion" };
const NAME = process.argv[2];
const { default: Client } = await import(NAME);

async function answer(job) {
  const client = new Client({ baseURL: job.base_url, apiKey: job.key, maxRetries: job.retries ?? 0 });
  try {
    if (job.final) return { value: await method(client, job.call)(plain(job.args))[FINAL[job.final]]() };
    const call = method(client, job.call)(...(job.positional ?? []), plain(job.args));
    const { data, response, request_id } = await call.withResponse();
    const headers = Object.fromEntries(response.headers);
    if (data instanceof Response) return { value: await sound(data), headers };
    if (!data[Symbol.asyncIterator]) return { value: data, request_id, headers };
    const items = await some(data, job.leave_after, job.abort && (() => data.controller.abort()));
    await turn();
    return { items, headers };
  } catch (error) {
    return told(error); // whatever it is, a caller sees it
  }
}

async function sound(data) {
  return Buffer.from(await data.arrayBuffer()).toString("base64");
}

function told(error) {
  const { status, code, type, param, message, errorCode, requestID, error: body, headers } = error;
  const name = error.constructor.name;
  return { error: name, status, code, type, param, message, errorCode, requestID, body, headers: plainHeaders(headers) };
}

function plainHeaders(headers) {
  return headers ? Object.fromEntries(headers) : {};
}

await serve(NAME, answer);
