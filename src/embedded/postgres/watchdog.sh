# Runs a PostgreSQL server that never outlives its owner.
#
#   sh -c '<this>' tallymark-postgres LOG SIGNAL REMOVE SERVER ARGUMENT…
#
# Standard input is a pipe of which the owner alone holds the other end: its end of file means that
# the owner is done or dead, however it died. Standard output is the directory's lock; it goes to
# the server as its standard input, so the lock is free when neither is left.

log=$1 signal=$2 remove=$3
shift 3
stopping=

"$@" <&1 >"$log" 2>&1 &
server=$!
trap 'stopping=1; kill -s "$signal" "$server"' USR1 HUP INT TERM

# A background job's standard input would be /dev/null.
exec 3<&0
(
    read -r _ <&3
    kill -s USR1 $$
    sleep 5
    kill -s QUIT "$server"
    sleep 5
    kill -s KILL "$server"
) >/dev/null &
reader=$!

# A trapped signal ends `wait` early.
wait "$server"
while kill -0 "$server"; do wait "$server"; done
kill "$reader"

# A server that stopped by itself leaves its log for the owner to read.
if [ -n "$stopping" ] && [ -n "$remove" ]; then
    rm -rf -- "$remove"
fi
