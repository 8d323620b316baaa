-- The parts of an expression that may give another value although no row changes. The expression is
-- the only column of a temporary view, whose rule holds it as a tree. pg_depend lists neither
-- PostgreSQL's own functions nor CURRENT_DATE, so the tree is searched for them.
WITH rule AS (
    SELECT ev_action::text AS tree FROM pg_rewrite
    WHERE ev_class = to_regclass('pg_temp.tallymark_expression') AND ev_type = '1'
), named AS (
    -- Functions, and those behind operators and comparisons of rows.
    SELECT m[1]::oid AS oid FROM rule, regexp_matches(tree, ':(?:opfunc|func)id (\d+)', 'g') m
    UNION
    SELECT o.oprcode::oid FROM rule, regexp_matches(tree, ':opnos \(o ([\d ]+)\)', 'g') m,
        regexp_split_to_table(m[1], ' ') number
    JOIN pg_operator o ON o.oid = number::oid
), printed AS (
    -- The types of all its parts, if some part turns values of any type into text.
    SELECT t.oid, t.typinput, t.typoutput, t.typelem, t.typcategory, m[1] = 'resulttype' AS is_cast_to
    FROM rule, regexp_matches(tree, ':([a-z_]*type(?:id|Id)?) (\d+)', 'g') m
    JOIN pg_type t ON t.oid = m[2]::oid
    WHERE tree LIKE '%{COERCEVIAIO %' OR EXISTS (
        SELECT FROM named JOIN pg_proc p ON p.oid = named.oid
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN (
            'concat', 'concat_ws', 'format', 'textanycat', 'anytextcat', 'array_to_string'))
), called AS (
    SELECT oid FROM named
    UNION
    SELECT typoutput::oid FROM printed
    UNION
    SELECT e.typoutput::oid FROM printed p JOIN pg_type e ON e.oid = p.typelem AND p.typcategory = 'A'
    UNION
    SELECT typinput::oid FROM printed WHERE is_cast_to
    UNION
    SELECT e.typinput::oid FROM printed p JOIN pg_type e ON e.oid = p.typelem AND p.typcategory = 'A'
    WHERE is_cast_to
)
SELECT (SELECT min(p.oid::regprocedure::text) FROM called JOIN pg_proc p ON p.oid = called.oid
        WHERE p.provolatile <> 'i' AND NOT (
            p.provolatile = 's' AND p.pronamespace = 'pg_catalog'::regnamespace AND (
                -- These depend on settings alone, all of which each transaction sets: TimeZone,
                -- DateStyle, IntervalStyle, lc_time, lc_numeric, lc_monetary. Conversions of text to
                -- an instant are not among them, as the text may be 'today'.
                p.proname IN (
                    'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'date_part', 'extract',
                    'date_trunc', 'timezone', 'make_timestamptz', 'timestamptz_pl_interval',
                    'timestamptz_mi_interval', 'interval_pl_timestamptz', 'date_add', 'date_subtract',
                    'to_char', 'to_date', 'to_number', 'to_timestamp', 'money', 'numeric',
                    'date_out', 'time_out', 'timetz_out', 'timestamp_out', 'timestamptz_out',
                    'interval_in', 'interval_out', 'cash_in', 'cash_out',
                    -- These print or read values of other types, which are looked at above.
                    'concat', 'concat_ws', 'format', 'textanycat', 'anytextcat', 'array_to_string',
                    'array_in', 'array_out', 'enum_in', 'enum_out', 'json_in', 'json_out',
                    'jsonb_in', 'jsonb_out')
                OR p.proname ~ '^(date|timestamp|timestamptz)_(eq|ne|lt|le|gt|ge|cmp)_(date|timestamp|timestamptz)$'
            ))) AS function,
       -- Other nodes than these: the current time, subqueries, aggregates, XML, documents by SQL's
       -- own syntax.
       (SELECT m[1] FROM regexp_matches(tree, '\{([A-Z]+)', 'g') m
        WHERE m[1] !~ ('^(QUERY|RTE|RANGETBLENTRY|RTEPERMISSIONINFO|ALIAS|FROMEXPR|RANGETBLREF|TARGETENTRY'
            '|VAR|CONST|FUNCEXPR|OPEXPR|DISTINCTEXPR|NULLIFEXPR|SCALARARRAYOPEXPR|BOOLEXPR|RELABELTYPE'
            '|COERCEVIAIO|ARRAYCOERCEEXPR|COERCETODOMAIN|NAMEDARGEXPR|FIELDSELECT|SUBSCRIPTINGREF'
            '|CASETESTEXPR|WHEN|NULLTEST|BOOLEANTEST|COLLATE'
            '|(CASE|COALESCE|MINMAX|ARRAY|ROW|ROWCOMPARE|COLLATE|CASEWHEN)(EXPR)?)$')
        ORDER BY m[1] <> 'SUBLINK', m[1] LIMIT 1) AS node,
       tree ~ '\{VAR :varno \d+ :varattno -\d' AS has_system_column,
       -- PostgreSQL reads such a literal when it reads the statement.
       tree ~ ':consttype (1082|1083|1114|1184|1266) ' AND {sql} ~* '''\s*(now|today|tomorrow|yesterday)\y'
           AS has_moment
FROM rule
