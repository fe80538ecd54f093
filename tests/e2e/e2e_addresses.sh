#!/bin/bash
# Addresses that cannot be asked: one line that says what is wrong and what to do, by probe and by a run.
. "${LB_SOURCE_ROOT:?}/tests/e2e/lib.sh"

command -v openssl >/dev/null || {
    echo "openssl is not installed"
    exit 77
}
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 2>/dev/null
cp -r "$LB_SOURCE_ROOT/examples/wordnet/teachers/nouns" model
served[plain]=nouns
served[tls]=nouns
host plain model
host tls model --tls-certificate certificate.pem --tls-key key.pem
unset "SSL_CERT_FILE"

probed() { # address, text...
    local address=$1
    shift
    expect 1 probe.log "$limbeck" probe "$address"
    one_error probe.log
    said probe.log "$@"
}

say "certificates"
probed "https://127.0.0.1:${port[tls]}" "https://127.0.0.1:${port[tls]}" "certificate" SSL_CERT_FILE=FILE
SSL_CERT_FILE=certificate.pem expect 0 trusted.log "$limbeck" probe "https://127.0.0.1:${port[tls]}"
SSL_CERT_FILE=certificate.pem probed "https://localhost:${port[tls]}" localhost "a name that stands in it"
SSL_CERT_FILE=absent.pem probed "https://127.0.0.1:${port[tls]}" "SSL_CERT_FILE must name a file of certificates"

say "TLS on one side only"
probed "http://127.0.0.1:${port[tls]}" "write https:// instead of http://"
probed "https://127.0.0.1:${port[plain]}" "write http:// instead of https://"

say "nobody there"
drop plain
probed "http://127.0.0.1:${port[plain]}" "Connection refused: nothing listens there" "is the daemon running" "the port right"
probed "unix:$PWD/no.socket" "No such file or directory: nothing listens there" "this its socket"
probed "http://no-such-host.invalid:8500" no-such-host.invalid "look at the name's spelling"

say "no addresses"
probed "http://a host:8500" '"http://a host:8500" is no URL' "holds a space"
probed "http://host:port" "its port is no number"
probed "host:8500" "write http://HOST:PORT"

say "a run says the same, in its recipe's line"
text nouns 60 31 >data.txt
base_recipe >recipe.yaml
cat >>recipe.yaml <<END
datasets: [{path: data.txt}]
teachers: [{name: nouns, url: "http://a host:8500"}]
loss_functions: [{function: kl}]
output_dir: run
END
expect 1 run.log "$limbeck" train recipe.yaml
one_error run.log
said run.log "recipe.yaml:$(grep -n teachers: recipe.yaml | cut -d : -f 1): teachers.0.url" "holds a space"
expect 1 scheme.log "$limbeck" train recipe.yaml --set "teachers.0.url=https://127.0.0.1:${port[tls]}"
one_error scheme.log
said scheme.log "teacher nouns" "SSL_CERT_FILE=FILE"
host plain model
expect 1 plain.log "$limbeck" train recipe.yaml --set "teachers.0.url=https://127.0.0.1:${port[plain]}"
one_error plain.log
said plain.log "teacher nouns" "write http:// instead of https://"
