/* The output "entropy": of softmax(logits / temperature), in nats. */
#include "server/engine/extract.h"

#include <math.h>

void lb_extract_entropy(struct lb_row *row, const struct lb_job_output *o) {
    double lse = lb_row_logsumexp(row), temperature = row->job->temperature, sum = 0;
    for (int64_t j = 0; j < row->n; j++) {
        double z = (double)row->x[j] / temperature;
        sum += exp(z - lse) * z;
    }
    float entropy = (float)(lse - sum);
    lb_put_floats(row, o, &entropy);
}
