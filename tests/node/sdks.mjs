// Official SDKs of JavaScript, unchanged but for their base URL: node sdks.mjs CASES.json
// A case is {name, base, key, model, stream}; told on stdout is what each handed out or raised.

import { readFileSync } from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import { GoogleGenAI } from '@google/genai';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';

globalThis.AI_SDK_LOG_WARNINGS = false;

const messages = [{ role: 'user', content: 'hello there' }];

async function openaiChat({ base, key, model, stream }) {
  const client = new OpenAI({ baseURL: base, apiKey: key });
  const more = stream ? { stream_options: { include_usage: true } } : {};
  const made = await client.chat.completions.create({ model, messages, stream, ...more });
  if (!stream) return made.choices[0].message.content;
  let text = '';
  for await (const chunk of made) text += chunk.choices[0]?.delta?.content ?? '';
  return text;
}

async function openaiResponses({ base, key, model, stream }) {
  const client = new OpenAI({ baseURL: base, apiKey: key });
  const made = await client.responses.create({ model, input: 'hello', stream });
  if (!stream) return made.output_text;
  let text = '';
  for await (const event of made) {
    if (event.type === 'response.output_text.delta') text += event.delta;
  }
  return text;
}

async function anthropicMessages({ base, key, model, stream }) {
  const client = new Anthropic({ baseURL: base, apiKey: key });
  const made = await client.messages.create({ model, messages, max_tokens: 900, stream });
  if (!stream) return made.content[0].text;
  let text = '';
  for await (const event of made) text += event.delta?.text ?? '';
  return text;
}

async function googleGenerate({ base, key, model, stream }) {
  const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: base } });
  const asked = { model, contents: 'hello' };
  if (!stream) return (await client.models.generateContent(asked)).text;
  let text = '';
  for await (const chunk of await client.models.generateContentStream(asked)) {
    text += chunk.text ?? '';
  }
  return text;
}

// streamText hands errors out as parts of its stream; the first one is what an application sees.
function vercel(modelOf) {
  return async ({ base, key, model, stream }) => {
    const asked = { model: modelOf(base, key)(model), prompt: 'hello' };
    if (!stream) return (await generateText(asked)).text;
    let text = '';
    for await (const part of streamText({ ...asked, onError: () => {} }).fullStream) {
      if (part.type === 'text-delta') text += part.text;
      if (part.type === 'error') throw part.error;
    }
    return text;
  };
}

const SDKS = {
  'openai chat': openaiChat,
  'openai responses': openaiResponses,
  '@anthropic-ai/sdk messages': anthropicMessages,
  '@google/genai generateContent': googleGenerate,
  '@ai-sdk/openai chat': vercel((baseURL, apiKey) => createOpenAI({ baseURL, apiKey }).chat),
  '@ai-sdk/openai responses': vercel((baseURL, apiKey) => createOpenAI({ baseURL, apiKey })),
  '@ai-sdk/anthropic messages': vercel((baseURL, apiKey) => createAnthropic({ baseURL, apiKey })),
  '@ai-sdk/google generateContent': vercel((baseURL, apiKey) =>
    createGoogleGenerativeAI({ baseURL, apiKey }),
  ),
};

async function outcome(one) {
  try {
    return { text: await SDKS[one.name](one) };
  } catch (error) {
    return {
      kind: error?.constructor?.name ?? typeof error,
      name: error?.name ?? '',
      status: error?.status ?? error?.statusCode ?? null,
      code: error?.code ?? null,
      told: `${error?.message ?? ''} ${JSON.stringify(error)}`.slice(0, 3000),
    };
  }
}

const told = [];
for (const one of JSON.parse(readFileSync(process.argv[2], 'utf8'))) {
  told.push({ name: one.name, ...(await outcome(one)) });
}
console.log(JSON.stringify(told));
