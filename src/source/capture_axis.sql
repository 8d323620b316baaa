    IF {value} IS NOT NULL THEN
        first_hour := floor(({first_hour})::float8 / width)::bigint * width;
        last_hour := floor(({last_hour})::float8 / width)::bigint * width + width - 1;
        key := '{place}:' || first_hour || '+' || width || ',';
        IF position(',' || key IN seen) = 0 THEN
            INSERT INTO tallymark.mark (capture, axis, first_hour, last_hour)
            VALUES ({name}, {axis}, first_hour, last_hour);
            seen := seen || key;
        END IF;
    END IF;
