#!/bin/bash
# limbeckd behind TLS: 1.2 and 1.3, nothing older; requests and answers of many records; keep-alive; who speaks plainly
# is turned away, and nobody is held up by it.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

command -v openssl >/dev/null || {
    echo "openssl is not installed"
    exit 77
}
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 2>/dev/null
cp -r "$LB_SOURCE_ROOT/examples/wordnet/teachers/nouns" model
"$limbeckd" nouns=model --listen 127.0.0.1:0 --port-file port --threads 1 \
    --tls-certificate certificate.pem --tls-key key.pem 2>tls.log &
jobs+=($!)
for ((i = 0; i < patience * 10; i++)); do
    [ -s port ] && break
    sleep 0.1
done
address=127.0.0.1:$(cat port)

say "the same numbers as without, in both versions"
jq -n '{inputs: [{name: "input_ids", shape: [4, 64], datatype: "INT32", data: [range(256)]}],
    outputs: [{name: "logits", parameters: {binary_data: true}}]}' >question.json
for version in 1.2 1.3; do
    curl -sf --cacert certificate.pem "--tlsv$version" --tls-max "$version" "https://$address/v2/models/nouns/infer" \
        --data-binary @question.json -o "answer-$version"
done
cmp answer-1.2 answer-1.3
[ "$(stat -c %s answer-1.2)" -gt 1000000 ] || fail "the answer is too small to need many records"

say "nothing older"
expect 35 old.log curl -sk --tlsv1.0 --tls-max 1.1 --ciphers 'ALL:@SECLEVEL=0' "https://$address/v2"

say "one connection, many requests; many connections"
for ((i = 0; i < 30; i++)); do
    curl -sf --cacert certificate.pem "https://$address/v2/health/live" "https://$address/v2" -w '%{num_connects}\n' \
        -o live.json -o server.json >connects || fail "request $i: status $?"
    [ "$(paste -sd' ' connects)" = "1 0" ] || fail "connects: $(cat connects)"
done
head -c 3000000 /dev/zero >zeros
[ "$(curl -sk --data-binary @zeros "https://$address/v2/models/nouns/infer" -o refused.json -w '%{http_code}')" = 400 ] ||
    fail "three megabytes of zeros"

say "plain HTTP gets nothing, and holds up nobody"
if curl -s -m 5 "http://$address/v2" >plain.json; then
    fail "an answer without TLS"
fi
curl -sf --cacert certificate.pem "https://$address/v2/health/ready" >ready.json

say "another certificate, by a signal: new connections see it, one that is there goes on"
daemon=${jobs[0]}
shown() { # the name in the certificate that a new connection sees
    openssl s_client -connect "$address" </dev/null 2>>openssl.log | openssl x509 -noout -subject -nameopt multiline |
        sed -n 's/ *commonName *= //p'
}
reload() { # waits until it is done
    local before
    before=$(grep -c ' reloaded ' tls.log) || true
    kill -HUP "$daemon"
    for ((i = 0; i < patience * 10; i++)); do
        [ "$(grep -c ' reloaded ' tls.log)" -gt "$before" ] && return
        sleep 0.1
    done
    fail "SIGHUP was not heard"
}
ask_on() { # the open connection
    printf 'GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n' >&"${open[1]}"
    read -r -t "$patience" status <&"${open[0]}" || fail "no answer on the open connection"
    [ "${status%$'\r'}" = "HTTP/1.1 200 OK" ] || fail "the open connection: $status"
    while read -r -t "$patience" line <&"${open[0]}" && [ "$line" != '{"live":true}' ]; do :; done
}
[ "$(shown)" = localhost ] || fail "shown: $(shown)"
coproc open { openssl s_client -quiet -connect "$address" 2>>openssl.log; }
jobs+=($!)
ask_on
openssl req -x509 -newkey rsa:2048 -nodes -keyout other-key.pem -out other.pem -days 2 -subj /CN=second 2>/dev/null
cp other.pem certificate.pem
reload
said tls.log reload_failed "belong together"
[ "$(shown)" = localhost ] || fail "shown after a certificate without its key: $(shown)"
cp other-key.pem key.pem
reload
[ "$(shown)" = second ] || fail "shown: $(shown)"
ask_on
