// Vercel's cron can call a path of its own deployment only. This one passes the call on to `tallymark serve` elsewhere.
//
// Environment: CRON_SECRET, which Vercel sends with each call; TALLYMARK_URL, the address of the server; TICK_TOKEN, its
// token.
import { createHash, timingSafeEqual } from "node:crypto";

const digest = (text) => createHash("sha256").update(text).digest();

export async function GET(request) {
  const { CRON_SECRET, TALLYMARK_URL, TICK_TOKEN } = process.env;
  if (!CRON_SECRET || !TALLYMARK_URL || !TICK_TOKEN) {
    return Response.json({ error: "set CRON_SECRET, TALLYMARK_URL and TICK_TOKEN" }, { status: 500 });
  }
  const sent = request.headers.get("authorization") ?? "";
  if (!timingSafeEqual(digest(sent), digest(`Bearer ${CRON_SECRET}`))) {
    return Response.json({ error: "this path is for Vercel's cron" }, { status: 401 });
  }
  // The tick goes on after this answer, so that the function's time does not limit it.
  const answer = await fetch(new URL("/tick?wait=false", TALLYMARK_URL), {
    method: "POST",
    headers: { authorization: `Bearer ${TICK_TOKEN}` },
    redirect: "error",
    signal: AbortSignal.timeout(10_000),
  });
  return new Response(await answer.text(), {
    status: answer.status,
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });
}
