#!/bin/bash
# limbeckd behind TLS: 1.2 and 1.3, nothing older; requests and answers of many records; keep-alive; who speaks plainly
# is turned away, and nobody is held up by it. Certificates read anew, and those of clients.
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

say "a text that is told while it is written"
text='{"prompt": "a small bird", "max_tokens": 40, "temperature": 0, "ignore_eos": true'
curl -sfk "https://$address/v1/completions" -d "$text}" | jq -j '.choices[0].text' >whole.txt
[ -s whole.txt ] || fail "no text"
for version in 1.0 1.1; do
    curl -sfkN "--http$version" "https://$address/v1/completions" -d "$text, \"stream\": true}" >events.txt ||
        fail "HTTP/$version: status $?"
    [ "$(tail -n 2 events.txt | head -n 1)" = "data: [DONE]" ] || fail "HTTP/$version: the end: $(tail -n 3 events.txt)"
    sed -n 's/^data: {/{/p' events.txt | jq -j '.choices[0].text' >joined.txt
    cmp whole.txt joined.txt
done

say "plain HTTP gets nothing, and holds up nobody"
if curl -s -m 5 "http://$address/v2" >plain.json; then
    fail "an answer without TLS"
fi
curl -sf --cacert certificate.pem "https://$address/v2/health/ready" >ready.json

say "who is one too many hears so, in TLS; who says nothing then is let go, and whoever is there goes on"
host few model --tls-certificate certificate.pem --tls-key key.pem --max-connections-per-address 2
few=127.0.0.1:${port[few]}
coproc held { openssl s_client -quiet -connect "$few" 2>>openssl.log; }
jobs+=($!)
printf 'GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n' >&"${held[1]}"
read -r -t "$patience" status <&"${held[0]}" || fail "no answer on the first connection"
exec {silent}<>"/dev/tcp/127.0.0.1/${port[few]}" # the second says nothing
for ((i = 0; i < 5; i++)); do
    [ "$(curl -sk "https://$few/v2/health/live" -o busy.json -w '%{http_code}')" = 503 ] || fail "one too many: $(cat busy.json)"
    said busy.json "too many connections"
    sleep 0.02 # a handshake in ten milliseconds is all that is had
done
for ((i = 0; i < 40; i++)); do # and many who say nothing hold nothing up
    # shellcheck disable=SC2034
    exec {mute}<>"/dev/tcp/127.0.0.1/${port[few]}"
done
printf 'GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n' >&"${held[1]}"
while read -r -t "$patience" line <&"${held[0]}" && [ "$line" != '{"live":true}' ]; do :; done
[ "$line" = '{"live":true}' ] || fail "the first connection goes on"
exec {silent}>&-
for ((i = 0; i < patience * 10; i++)); do
    [ "$(curl -sk "https://$few/v2/health/live" -o live.json -w '%{http_code}')" = 200 ] && break
    sleep 0.1
done
said live.json '"live":true'
drop few

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
said tls.log certificate_expires "days=" # it was made for two
openssl req -x509 -newkey rsa:2048 -nodes -keyout other-key.pem -out other.pem -days 30 -subj /CN=second 2>/dev/null
cp other.pem certificate.pem
reload
said tls.log reload_failed "belong together"
[ "$(shown)" = localhost ] || fail "shown after a certificate without its key: $(shown)"
cp other-key.pem key.pem
reload
[ "$(grep -c certificate_expires tls.log)" -eq 1 ] || fail "a warning of thirty days"
[ "$(shown)" = second ] || fail "shown: $(shown)"
ask_on

say "clients' certificates: needed for all but health, signed by the right authority, a name for turns and log"
sign() { # authority, name, extensions: NAME.pem and NAME-key.pem
    openssl req -newkey rsa:2048 -nodes -keyout "$2-key.pem" -out request.pem -subj "/CN=$2" 2>/dev/null
    printf '%s\n' "$3" >extensions
    openssl x509 -req -in request.pem -CA "$1.pem" -CAkey "$1-key.pem" -CAcreateserial -days 2 -out "$2.pem" \
        -extfile extensions 2>/dev/null
}
for authority in right wrong; do
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$authority-key.pem" -out "$authority.pem" -days 2 \
        -subj "/CN=$authority authority" 2>/dev/null
done
sign right sweep-7 extendedKeyUsage=clientAuth
sign right server $'extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1'
sign wrong stranger extendedKeyUsage=clientAuth
served[clients]=nouns
host clients model --tls-certificate server.pem --tls-key server-key.pem --tls-client-ca right.pem
as() { # certificate ("": none), path: the answer's status
    local show=()
    [ -z "$1" ] || show=(--cert "$1.pem" --key "$1-key.pem")
    curl -sk "${show[@]}" "https://127.0.0.1:${port[clients]}$2" -o answer.json -w '%{http_code}' || true
}
for version in 1.2 1.3; do
    [ "$(curl -sk --tlsv$version --tls-max $version --cert sweep-7.pem --key sweep-7-key.pem -o answer.json -w '%{http_code}' \
        "https://127.0.0.1:${port[clients]}/v2/models/nouns")" = 200 ] || fail "a good certificate in TLS $version"
done
said clients.log "client=\"sweep-7\" method=GET"
[ "$(as "" /v2/health/ready)" = 200 ] || fail "health without a certificate"
[ "$(as "" /v2/models/nouns)" = 403 ] || fail "no certificate"
said answer.json "a client certificate is needed here (--tls-client-ca)"
[ "$(as stranger /v2/models/nouns)" = 000 ] || fail "a certificate of another authority"
[ "$(as stranger /v2/health/ready)" = 000 ] || fail "a certificate of another authority, for health"
[ "$(as server /v2/models/nouns)" = 000 ] || fail "a server's certificate"
[ "$(as sweep-7 /v2/models/nouns)" = 200 ] || fail "a good certificate after bad ones"

say "limbeck's own certificate"
export SSL_CERT_FILE=$PWD/right.pem
probe=("$limbeck" probe "https://127.0.0.1:${port[clients]}")
expect 1 probe.log "${probe[@]}"
said probe.log "answered 403: a client certificate is needed here" LIMBECK_CLIENT_CERTIFICATE
cat sweep-7.pem sweep-7-key.pem >both.pem
LIMBECK_CLIENT_CERTIFICATE=sweep-7.pem LIMBECK_CLIENT_KEY=sweep-7-key.pem expect 0 probe.log "${probe[@]}"
LIMBECK_CLIENT_CERTIFICATE=both.pem expect 0 probe.log "${probe[@]}"
LIMBECK_CLIENT_CERTIFICATE=absent.pem expect 1 probe.log "${probe[@]}"
said probe.log "LIMBECK_CLIENT_CERTIFICATE must name a PEM file"
one_error probe.log

say "with tokens"
printf 'jo jo-token-1\n' >tokens
chmod 600 tokens
drop clients
host clients model --tls-certificate certificate.pem --tls-key key.pem --tls-client-ca right.pem --token-file tokens
[ "$(as sweep-7 /v2/models/nouns)" = 401 ] || fail "a certificate without the token"
curl -sfk --cert sweep-7.pem --key sweep-7-key.pem -H "Authorization: Bearer jo-token-1" \
    "https://127.0.0.1:${port[clients]}/v2/models/nouns" -o answer.json
said clients.log "client=\"jo\" method=GET"
expect 1 none.log "$limbeckd" nouns=model --check --tls-certificate certificate.pem --tls-key key.pem --tls-client-ca key.pem
said none.log --tls-client-ca
