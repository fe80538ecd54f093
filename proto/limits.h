/* Every maximum of the wire, in one place. common/ receives maxima as arguments and never includes this. */
#ifndef LB_PROTO_LIMITS_H
#define LB_PROTO_LIMITS_H

#define LB_MAX_BODY_BYTES (256u << 20)      /* a request's body */
#define LB_MAX_RESPONSE_BYTES (1024u << 20) /* an answer's body */
#define LB_MAX_JSON_BYTES (16u << 20) /* a request's JSON; an answer's JSON in front of binary tensors */
#define LB_MAX_JSON_ANSWER_BYTES                                                                             \
    (64u << 20) /* an answer that is all JSON: room for LB_MAX_JSON_VALUES numbers */
#define LB_MAX_JSON_DEPTH 32
#define LB_MAX_JSON_VALUES 4000000   /* values in one JSON part, either way; more: "ask for binary_data" */
#define LB_MAX_INFO_BYTES (4u << 20) /* what a server says of itself, or of a model */
#define LB_MAX_TENSORS 64            /* inputs, or outputs, of one request */
#define LB_MAX_WIRE_DIMS 6
#define LB_MAX_NAME 128 /* bytes of a model's or tensor's name, with the NUL */
#define LB_MAX_ID 256   /* bytes of a request id */
#define LB_MAX_SEQUENCES 4096
#define LB_MAX_REQUEST_TOKENS 262144
#define LB_MAX_TOP_K 16384
#define LB_DEFAULT_TOP_K 64
#define LB_MAX_SCORE_IDS 16384             /* ids of one position in score_ids */
#define LB_MAX_SAMPLES 65535               /* sample_count */
#define LB_MAX_VOCAB_MAPS 64               /* of one model */
#define LB_MAX_VOCAB_MAP_BYTES (16u << 20) /* of all of one model's maps */
#define LB_MAX_TOKEN_FILE_BYTES 65536
#define LB_MAX_HEADER_BYTES 65536
#define LB_MIN_TEMPERATURE 0.01
#define LB_MAX_TEMPERATURE 100.0

#endif
