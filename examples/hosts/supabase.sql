-- Supabase calls `tallymark serve` every five minutes. First enable pg_cron and pg_net (Database, Extensions), and put the
-- address and the token of your server here. Then run this once in the SQL editor.
SELECT vault.create_secret('https://tallymark.example.com', 'tallymark_url');
SELECT vault.create_secret('TOKEN', 'tallymark_token');

-- The call ends at once (`wait=false`), and the tick goes on: pg_net gives up after `timeout_milliseconds`.
SELECT cron.schedule('tallymark', '*/5 * * * *', $$
    SELECT net.http_post(
        url := (SELECT decrypted_secret FROM vault.decrypted_secrets WHERE name = 'tallymark_url')
            || '/tick?wait=false',
        headers := jsonb_build_object(
            'Content-Type', 'application/json',
            'Authorization', 'Bearer '
                || (SELECT decrypted_secret FROM vault.decrypted_secrets WHERE name = 'tallymark_token')),
        timeout_milliseconds := 5000)
$$);

-- The last answers:  SELECT created, status_code, content FROM net._http_response ORDER BY created DESC LIMIT 5;
-- To end it:         SELECT cron.unschedule('tallymark');
