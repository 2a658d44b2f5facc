# The lines that validate/runner.py would print; OUTPUT is the folder of its results.
plan() { # ids
    modules=
    for id in "$@"; do
        modules="$modules${modules:+, }{\"id\": \"$id\", \"kind\": \"module\", \"name\": \"test_$id\", \"label\": \"\"}"
    done
    printf '{"event": "plan", "modules": [%s], "missing": []}\n' "$modules"
}

start() { # id
    mkdir -p "$OUTPUT/$1"
    printf '{"event": "start", "id": "%s", "name": "test_%s", "kind": "module", "label": ""}\n' "$1" "$1"
}

end() { # id, then in JSON the names of the report, of the checks, and of the log
    printf '{"event": "end", "id": "%s", "name": "test_%s", "kind": "module", "label": "", "status": 0, ' "$1" "$1"
    printf '"signal": null, "timed_out": false, "memory_kills": 0, "seconds": 0.3, "junit": %s, ' "$2"
    printf '"checks": %s, "log": %s, "tail": "", "command": [], "env": {}}\n' "$3" "$4"
}

finish() { printf '{"event": "done"}\n'; }
