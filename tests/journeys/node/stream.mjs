// A stream, read as S0's program reads it. Prints what was seen, and every chunk, as JSON.
import OpenAI from "openai";

const { BASE_URL, API_KEY, MODEL, QUESTION, INCLUDE_USAGE } = process.env;
const client = new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL });

const stream = await client.chat.completions.create({
  model: MODEL,
  messages: [{ role: "user", content: QUESTION }],
  max_tokens: 16,
  stream: true,
  ...(INCLUDE_USAGE ? { stream_options: { include_usage: true } } : {}),
});

const seen = { thinking: "", answer: "", order: [], usage: null, chunks: [] };
const began = (part) => seen.order.includes(part) || seen.order.push(part);
for await (const chunk of stream) {
  seen.chunks.push(chunk);
  if (!chunk.choices?.length) {
    seen.usage = chunk.usage;
    continue;
  }
  const delta = chunk.choices[0].delta;
  if (delta.reasoning_content) {
    began("thinking");
    seen.thinking += delta.reasoning_content;
  } else if (delta.content) {
    began("answer");
    seen.answer += delta.content;
  }
}

console.log(JSON.stringify(seen));
