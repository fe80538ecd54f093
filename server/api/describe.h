/* What a model is and offers, as JSON: the protocol's metadata, the parameters that distillation needs, and
 * the configuration that perf_analyzer reads. Pure; any thread. NULL when out of memory; the caller owns the
 * result. */
#ifndef LB_API_DESCRIBE_H
#define LB_API_DESCRIBE_H

#include "common/base/json.h"
#include "server/models/repository.h"

/* GET /v2/models/{model} */
json_t *lb_describe_model(const struct lb_hosted *hosted);
/* GET /v2/models/{model}/config, in the shape of Triton's model configuration. */
json_t *lb_describe_config(const struct lb_hosted *hosted);
/* GET /v2 */
json_t *lb_describe_server(void);

#endif
