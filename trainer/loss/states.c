/* Losses between activations: a the student's (projected), b the teacher's, rows of the same width d. */
#include "trainer/loss/loss.h"

#include <math.h>

/* Mean square error (FitNets, Romero et al. 2014): L = |a - b|^2 / d per row; dL/da = 2 (a - b) / d.
 * normalize: divided by the mean square of all of b (of the rows that count), so that the loss is 1 for a = 0
 * whatever the teacher's scale. */
double lb_loss_mse(const float *a, const float *b, int64_t n, int64_t width, const double *row_weight,
                   bool normalize, double scale, float *da) {
    double inverse = 1.0;
    if (normalize) {
        double square = 0, rows = 0;
        for (int64_t i = 0; i < n; i++) {
            double row = 0;
            for (int64_t j = 0; j < width; j++) {
                row += (double)b[i * width + j] * b[i * width + j];
            }
            square += row_weight[i] > 0 ? row : 0;
            rows += row_weight[i] > 0 ? 1 : 0;
        }
        inverse = square > 0 ? rows * (double)width / square : 1.0;
    }
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        float factor = (float)(2 * scale * inverse * row_weight[i] / (double)width);
        const float *x = a + i * width, *y = b + i * width;
        for (int64_t j = 0; j < width; j++) {
            float d = x[j] - y[j];
            da[i * width + j] += factor * d;
            sum += (double)d * d;
        }
        loss += row_weight[i] * inverse * sum / (double)width;
    }
    return loss;
}

/* Cosine (DistilBERT, Sanh et al. 2019): L = 1 - a.b / (|a| |b|) per row; dL/da = (cos a/|a| - b/|b|) / |a|.
 */
double lb_loss_cosine(const float *a, const float *b, int64_t n, int64_t width, const double *row_weight,
                      bool normalize, double scale, float *da) {
    (void)normalize; /* is by nature */
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *x = a + i * width, *y = b + i * width;
        double xx = 0, yy = 0, xy = 0;
        for (int64_t j = 0; j < width; j++) {
            xx += (double)x[j] * x[j];
            yy += (double)y[j] * y[j];
            xy += (double)x[j] * y[j];
        }
        double nx = fmax(sqrt(xx), 1e-12), ny = fmax(sqrt(yy), 1e-12), cosine = xy / (nx * ny);
        double factor = scale * row_weight[i];
        float along = (float)(factor * cosine / (nx * nx)), towards = (float)(factor / (nx * ny));
        for (int64_t j = 0; j < width; j++) {
            da[i * width + j] += along * x[j] - towards * y[j];
        }
        loss += row_weight[i] * (1 - cosine);
    }
    return loss;
}
