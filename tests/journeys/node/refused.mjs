// A wrong key and a wrong field. Prints what the SDK's errors say, and how many requests each took, as JSON.
import OpenAI from "openai";

const { BASE_URL, API_KEY } = process.env;
const said = {};

async function refused(name, apiKey, fields) {
  let requests = 0;
  const counting = (url, init) => {
    requests += 1;
    return fetch(url, init);
  };
  const client = new OpenAI({ apiKey, baseURL: BASE_URL, fetch: counting });
  try {
    await client.chat.completions.create({
      model: "deepseek-chat",
      messages: [{ role: "user", content: "Hi" }],
      max_tokens: 4,
      ...fields,
    });
  } catch (error) {
    said[name] = { is: error.constructor.name, status: error.status, code: error.code, type: error.type, requests };
  }
}

await refused("key", "sk-wrong", {});
await refused("field", API_KEY, { temperature: 9 });
console.log(JSON.stringify(said));
