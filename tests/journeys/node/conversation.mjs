// A conversation of two rounds: the answer goes back without the thinking. Prints both answers as JSON.
import OpenAI from "openai";

const { BASE_URL, API_KEY, MODEL } = process.env;
const client = new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL });

const messages = [
  { role: "user", content: "你好" },
  { role: "assistant", content: "你好！想聊什么？" },
  { role: "user", content: "8.3和8.25谁大？" },
];
const rounds = [];
for (const next of ["请再想一想。", null]) {
  const completion = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 16 });
  rounds.push(completion);
  messages.push({ role: "assistant", content: completion.choices[0].message.content });
  if (next) messages.push({ role: "user", content: next });
}

console.log(JSON.stringify(rounds));
