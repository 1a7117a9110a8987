/* Which scheme each layer gets when the model as a whole has a budget: of bits a weight, or of error of its results.
   Errors of single layers add up well enough, so the next bits go where a bit buys most; what is chosen lies on the
   convex hull of the trade, within one layer of the best there is. */
#include "qmodel.h"

static double bits_of(const ny_layer *l, int i) {
  return (double)l->weight.n * (double)l->weight.k * ny_scheme_bits(l->trial[i].scheme, l->weight.k);
}

/* The next step up for a layer: the trial that gives most error back for a bit. -1: none. */
static int step(const ny_layer *l, double room, double *gain) {
  int best = -1;
  *gain = 0;
  for (int i = 0; i < l->n_trial; i++) {
    double more = bits_of(l, i) - bits_of(l, l->choice), less = l->trial[l->choice].error - l->trial[i].error;
    if (more <= 0 || more > room || less <= 0 || less / more <= *gain) continue;
    *gain = less / more;
    best = i;
  }
  return best;
}

static ny_layer *cheapest_gain(ny_layers *ls, double room, int *to) {
  ny_layer *best = NULL;
  double most = 0, gain;
  for (size_t i = 0; i < ls->n; i++) {
    ny_layer *l = &ls->v[i];
    int t = l->skip || !l->n_trial ? -1 : step(l, room, &gain);
    if (t < 0 || gain <= most) continue;
    most = gain, best = l, *to = t;
  }
  return best;
}

void ny_budget_spend(ny_layers *ls, double bits, double max_error) {
  double elements = 0, spent = 0, error = 0;
  for (size_t i = 0; i < ls->n; i++) {
    ny_layer *l = &ls->v[i];
    if (l->skip || !l->n_trial) continue;
    l->choice = 0;
    elements += (double)l->weight.n * (double)l->weight.k, spent += bits_of(l, 0), error += l->trial[0].error;
  }
  double room = bits > 0 ? bits * elements - spent : 1e300;
  while (!(max_error > 0 && error <= max_error)) {
    int to = 0;
    ny_layer *l = cheapest_gain(ls, room, &to);
    if (!l) break;
    room -= bits_of(l, to) - bits_of(l, l->choice);
    error += l->trial[to].error - l->trial[l->choice].error;
    l->choice = to;
  }
  for (size_t i = 0; i < ls->n; i++)
    if (!ls->v[i].skip && ls->v[i].n_trial) ls->v[i].scheme = ls->v[i].trial[ls->v[i].choice].scheme;
}
