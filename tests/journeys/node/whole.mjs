// A whole answer: S0's and S1's first programs. Prints the answer as JSON.
import OpenAI from "openai";

const { BASE_URL, API_KEY, MODEL, QUESTION, THINKING } = process.env;
const client = new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL });

const completion = await client.chat.completions.create({
  model: MODEL,
  messages: [{ role: "user", content: QUESTION }],
  max_tokens: 40,
  ...(THINKING ? { thinking: { type: THINKING } } : {}),
});

console.log(JSON.stringify(completion));
