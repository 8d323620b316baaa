CREATE OR REPLACE FUNCTION tallymark.steps_of(bucket text, own_zone text, week_start integer,
    since timestamptz, until timestamptz, step interval, of_zone text,
    OUT starts timestamptz[], OUT seconds bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- The starts of the steps that hold the range, and the end of the last one. `seconds`: all steps are
-- of this length. Each step consists of whole buckets, or an error says what would work.
DECLARE
    months CONSTANT integer := extract(year FROM step) * 12 + extract(month FROM step);
    days integer := extract(day FROM step);
    clock bigint := extract(epoch FROM step - make_interval(months => months, days => days));
    wide_months CONSTANT integer := extract(year FROM bucket::interval) * 12 + extract(month FROM bucket::interval);
    wide_days CONSTANT integer := extract(day FROM bucket::interval);
    wide_clock CONSTANT bigint := extract(epoch FROM bucket::interval - make_interval(months => wide_months, days => wide_days));
    is_regular boolean := true;
    is_even boolean := false;
    -- A step lasts at most this long.
    longest interval;
    day date;
    last_day date;
    found integer;
    inside timestamptz;
BEGIN
    IF since IS NULL OR until IS NULL OR step IS NULL THEN
        RAISE EXCEPTION 'since, until and step must be given' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'write the first instant, the end and a step such as interval ''1 day''';
    ELSIF NOT isfinite(since) OR NOT isfinite(until) THEN
        RAISE EXCEPTION 'the range has no bounds' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'write finite times for since and until';
    ELSIF since >= until THEN
        RETURN;
    END IF;
    IF of_zone <> own_zone THEN
        BEGIN
            PERFORM since AT TIME ZONE of_zone;
        EXCEPTION WHEN invalid_parameter_value THEN
            RAISE EXCEPTION 'time zone % is not recognized', of_zone USING ERRCODE = 'invalid_parameter_value',
                HINT = 'the view pg_timezone_names lists the zones';
        END;
    END IF;
    IF clock > 0 AND clock % 86400 = 0 THEN
        days := days + clock / 86400;
        clock := 0;
    END IF;
    IF least(months, days, clock) < 0
        OR (months > 0)::integer + (days > 0)::integer + (clock > 0)::integer <> 1
        OR extract(epoch FROM step) <> floor(extract(epoch FROM step))
        OR NOT (CASE WHEN wide_clock > 0 THEN clock % wide_clock = 0
            WHEN wide_days = 1 THEN clock = 0
            WHEN wide_days > 1 THEN clock = 0 AND months = 0 AND days % wide_days = 0
            ELSE clock = 0 AND days = 0 AND months % wide_months = 0 END)
    THEN
        RAISE EXCEPTION 'a step of % does not consist of whole buckets of %', step, bucket
            USING ERRCODE = 'invalid_parameter_value', HINT = CASE
                WHEN wide_clock > 0 THEN format('use a multiple of %s, or a number of days or of months', bucket)
                WHEN wide_days = 1 THEN 'use a number of days or of months'
                ELSE format('use a multiple of %s', bucket) END;
    END IF;
    longest := make_interval(days => months * 31 + days, secs => clock);
    IF (extract(epoch FROM until) - extract(epoch FROM since)) / extract(epoch FROM longest) > 100000 THEN
        RAISE EXCEPTION 'the range has more than 100000 steps of %', step
            USING ERRCODE = 'program_limit_exceeded', HINT = 'use a wider step, or a shorter range';
    END IF;
    longest := longest + interval '1 day';
    IF clock > 0 AND 86400 % clock = 0 THEN
        SELECT c.starts, c.is_even INTO starts, is_even FROM tallymark.clock_steps(clock, of_zone,
            date_trunc('second', since) - longest, date_trunc('second', until) + longest) c;
    ELSIF clock > 0 THEN
        is_regular := false;
        is_even := true;
        -- From the bucket that holds the first instant.
        inside := date_trunc('second', since);
        inside := inside - make_interval(secs => date_part('epoch', inside AT TIME ZONE own_zone)::bigint % wide_clock);
        starts := ARRAY(SELECT generate_series(inside, until + longest, step));
    ELSE
        day := (since AT TIME ZONE of_zone)::date;
        IF months > 0 THEN
            -- Counted from January where a year consists of whole steps.
            found := extract(month FROM day)::integer - 1;
            day := date_trunc('month', day)::date - make_interval(months =>
                CASE WHEN 12 % months = 0 THEN found % months WHEN months % 12 = 0 THEN found
                    ELSE found % greatest(wide_months, 1) END);
        ELSIF days = 7 OR wide_days = 7 THEN
            day := day - ((extract(isodow FROM day)::integer + 6 - week_start) % 7);
        END IF;
        -- The clocks may show a date and then fall back before it.
        last_day := (until AT TIME ZONE of_zone)::date + longest;
        starts := tallymark.days_begin(ARRAY(
            SELECT (day + make_interval(months => months * i, days => days * i))::date
            FROM generate_series(-1, (last_day - day) / (months * 28 + days) + 1) AS i), of_zone);
        starts := ARRAY(SELECT DISTINCT s FROM unnest(starts) AS s ORDER BY s);
    END IF;
    starts := starts[width_bucket(since, starts) :
        width_bucket(until - interval '1 microsecond', starts) + 1];
    IF of_zone <> own_zone OR NOT is_regular THEN
        inside := tallymark.inside_bucket(starts, bucket::interval, own_zone, week_start);
        IF inside IS NOT NULL THEN
            RAISE EXCEPTION 'the step from % on begins inside of a bucket of % in %',
                to_char(inside AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), bucket, own_zone
                USING ERRCODE = 'invalid_parameter_value', HINT = CASE
                    WHEN of_zone = own_zone THEN 'use a step that divides a day, or a number of days'
                    WHEN wide_clock > 0 THEN format('use the zone %s, or one whose difference to it is always a '
                        'multiple of %s; or compute a rollup with narrower buckets', own_zone, bucket)
                    ELSE format('use the zone %s, or compute a rollup with buckets of an hour or less', own_zone) END;
        END IF;
    END IF;
    IF is_even OR NOT EXISTS (
        SELECT FROM (SELECT s - lag(s) OVER (ORDER BY s) AS length FROM unnest(starts) AS s) AS each
        WHERE each.length <> starts[2] - starts[1])
    THEN
        seconds := extract(epoch FROM starts[2] - starts[1]);
    END IF;
END
$body$
