# hold.sh SOURCE PHASE: wait in this phase if the source says so, until somebody lets go. Fails after ten minutes.
[ -e "$1/hold-$2" ] || exit 0
echo "holding in $2"
rounds=0
while [ ! -e /tmp/go ]; do
    rounds=$((rounds + 1))
    [ "$rounds" -lt 12000 ] || exit 1
    sleep 0.05
done
