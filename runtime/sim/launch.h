/* Blocks, warps and barriers while a launch runs: what warp.c, barrier.c, launch.c and the checks share. */
#ifndef NY_SIM_LAUNCH_H
#define NY_SIM_LAUNCH_H
#include "parse.h"

enum { NY_N_BARRIERS = 16 };
enum { NY_POLLS = 256 }; /* strong accesses of global memory that end the turn of a warp: it may wait for another */
typedef struct ny_barrier {
  uint32_t arrived, expected; /* threads; expected 0: all that live */
  uint32_t waiting;           /* warps */
  bool and_all, or_any;       /* of the predicates of .red */
  uint32_t count;
} ny_barrier;
enum { NY_WARP_READY, NY_WARP_WAITING, NY_WARP_DONE };

static inline uint64_t ny_clock(const ny_sim_grid *g) { return g->clocks; }
static inline const ny_ptx_stmt *ny_stmt(const ny_sim_grid *g, const ny_ptx_ins *i) {
  return &g->module->stmt[i->stmt];
}

/* ---- warp.c */
void ny_warp_start(ny_sim_warp *w);                            /* its lanes at the first instruction */
void ny_warp_run(ny_sim_warp *w, int32_t quantum);             /* until it waits, ends, yields or has run that many */
void ny_go(ny_sim_warp *w, uint32_t mask, uint32_t target);    /* lanes of mask jump, the other active ones go on */
void ny_leave(ny_sim_warp *w, uint32_t mask, uint32_t target); /* as ny_go, with the others staying what runs */
void ny_split(ny_sim_warp *w, uint32_t mask); /* the active lanes that are not in mask go on by themselves */
void ny_block_path(ny_sim_warp *w, const ny_ptx_ins *i, ny_wait why, uint32_t barrier, uint32_t want);
uint32_t ny_pc_of(const ny_sim_warp *w, const ny_ptx_ins *i);

/* ---- barrier.c */
/* The paths that wait at barriers, now that no path of the warp can go on. */
void ny_barrier_settle(ny_sim_warp *w);
void ny_barrier_recheck(ny_sim_block *b); /* a warp is done: others may wait for fewer now */
bool ny_barrier_stuck(ny_sim_block *b);   /* no warp can go on: a finding */

/* ---- report.c */
struct ny_sim_findings *ny_findings_new(uint32_t limit);
void ny_findings_move(struct ny_sim_findings *f, ny_sim_result *r); /* and frees */
ny_sim_site ny_site(const ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane);
/* The site of thread number `thread` (linear) of block number `block` at instruction `pc`. */
ny_sim_site ny_site_of(const ny_sim_grid *g, uint64_t block, uint32_t thread, uint32_t pc);
void ny_find_two(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, const ny_sim_site *other, ny_sim_finding_kind kind,
                 uint64_t address, uint32_t bytes, const char *fmt, ...) NY_PRINTF(8, 9);
/* "12 bytes after \"x\" (4096 bytes)": an address that is in no range. */
void ny_nearest(const ny_sim_grid *g, uint64_t addr, char *out, size_t n);

/* ---- access.c */
const ny_sim_range *ny_range_find(ny_sim_grid *g, uint64_t addr, uint64_t bytes);
/* The range that all these bytes are in; NULL: none. Mostly it is the one of the access before. */
static inline const ny_sim_range *ny_range_of(ny_sim_grid *g, uint64_t addr, uint64_t bytes) {
  if (g->last_range < g->n_ranges) {
    const ny_sim_range *r = &g->range[g->last_range];
    if (addr - r->base < r->bytes && bytes <= r->bytes - (addr - r->base)) return r;
  }
  return ny_range_find(g, addr, bytes);
}

/* ---- shadow.c: who knows of what. A warp's epoch grows with each thing it makes known; an access is tagged with it.
   Warp v knows all of warp w up to epoch clock[w]. The last component is what asynchronous copies have landed. */
typedef struct ny_warp_clock {
  uint32_t epoch;
  uint32_t full;              /* all lanes know of each other up to here */
  uint32_t *known;            /* by warp */
  uint32_t (*lane)[NY_LANES]; /* [b][a]: lane b knows of lane a up to here; NULL: no partial synchronisation yet */
} ny_warp_clock;
typedef struct ny_published { /* blocks that made their work known through an atomic at this address */
  uint64_t key, first, last;
} ny_published;
typedef struct ny_shadow {
  uint32_t n, checks; /* n: warps + 1 */
  uint32_t base;      /* epochs up to this one are of earlier blocks */
  uint32_t landed;    /* epoch of the asynchronous copies */
  ny_warp_clock *warp;
  struct ny_sim_clock *clock; /* open addressing */
  uint32_t n_clocks, cap_clocks;
  struct ny_cells *page; /* shared memory; NULL: not checked */
  uint32_t n_pages, cell_bytes;
  ny_published seen[8]; /* what this block has learned of other blocks */
  uint32_t n_seen;
} ny_shadow;
ny_shadow *ny_shadow_new(ny_sim_block *b, uint32_t checks);
void ny_shadow_begin(ny_sim_block *b); /* the next block on the same memory */
void ny_shadow_free(ny_shadow *s);
/* Whether warp w, lane (NY_LANES: all lanes), knows of what lane `by_lane` of warp `by` did in `epoch`. */
static inline bool ny_shadow_knows(const ny_sim_warp *w, uint32_t lane, uint32_t by, uint32_t by_lane, uint32_t epoch) {
  const ny_shadow *s = w->block->shadow;
  const ny_warp_clock *k = &s->warp[w->index];
  if (epoch <= s->base) return true;
  if (by != w->index) return epoch <= k->known[by];
  return by_lane == lane || epoch <= k->full || (k->lane && lane < NY_LANES && epoch <= k->lane[lane][by_lane]);
}
void ny_shadow_strong(ny_sim_warp *w, uint32_t mask, uint64_t key, uint32_t how); /* an atomic access is an edge */

void ny_shadow_publish(const ny_shadow *s, ny_sim_clock *c); /* all copies landed so far are known to c */

/* ---- cells.c: the history of memory, by page. A cell is as large as the largest piece that all accesses of its page so
   far move whole, at most 16 bytes: a smaller access splits the cells of the page, so each byte's history is exact. */
enum { NY_PAGE_LOG = 10, NY_PAGE = 1 << NY_PAGE_LOG };
typedef struct ny_cells {
  uint8_t *at;    /* NULL: nobody has come here yet */
  uint32_t grain; /* log2 of the bytes of a cell */
} ny_cells;
/* Into the memory of `to`, which has a smaller grain: NY_PAGE >> to.grain cells of cell_bytes. */
void ny_cells_split(const ny_cells *from, const ny_cells *to, size_t cell_bytes);
/* Lanes one after another whose pieces lie one after another, or are one and the same. */
typedef struct ny_strip {
  uint64_t addr, bytes;
  uint32_t piece;   /* bytes of one lane */
  uint32_t lane, n; /* the first, how many */
  bool same;        /* several lanes at one address */
} ny_strip;
typedef struct ny_touch { /* one access of a warp, all of it in memory that is there */
  ny_sim_warp *w;
  const ny_ptx_ins *i;
  const uint64_t *addr; /* by lane */
  uint32_t mask, bytes, how;
  uint32_t grain;    /* the largest that fits */
  uint32_t n_strips; /* in order of lanes */
  ny_strip strip[NY_LANES];
} ny_touch;
void ny_touch_strips(ny_touch *t); /* from what precedes them */
/* A part of a strip that lies in one page. Cell k is of lane + (k >> per_lane). */
typedef struct ny_run {
  void *cell;
  uint32_t n, lane, per_lane;
} ny_run;
/* The part from byte `done` on, and how long it is. */
static inline uint64_t ny_strip_part(const ny_strip *s, uint64_t done) {
  uint64_t page = NY_PAGE - (s->addr + done) % NY_PAGE, left = s->bytes - done;
  return page < left ? page : left;
}
static inline ny_run ny_strip_run(const ny_strip *s, uint64_t done, const ny_cells *page, size_t cell_bytes) {
  ny_run r = {page->at + ((s->addr + done) % NY_PAGE >> page->grain) * cell_bytes,
              (uint32_t)(ny_strip_part(s, done) >> page->grain), s->lane, 31};
  if (s->same || s->n == 1) return r;
  uint32_t log = (uint32_t)__builtin_ctz(s->piece);
  r.lane += (uint32_t)(done >> log);
  r.per_lane = log - page->grain;
  return r;
}
/* The lane that a strip stands for in front of ny_shadow_knows: NY_LANES is none, and knows only what all do. */
static inline uint32_t ny_run_lane(const ny_strip *s, ny_run r, uint32_t k) {
  return s->same ? (uint32_t)NY_LANES : r.lane + (k >> r.per_lane);
}

/* ---- shared_shadow.c, global_shadow.c */
void ny_shadow_pages_free(ny_shadow *s);
void ny_shadow_pages(ny_sim_block *b, ny_shadow *s);
void ny_shadow_shared(const ny_touch *t);
struct ny_shadow_global *ny_shadow_global_new(ny_sim_grid *g);
void ny_shadow_global_free(struct ny_shadow_global *s);
void ny_shadow_global(const ny_touch *t);
#endif
