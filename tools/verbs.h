/* The verbs, one row each; nybble.c includes verbs.def. */
#ifndef NY_VERBS_H
#define NY_VERBS_H
#define VERB(name, args, text) int verb_##name(int argc, char **argv);
#include "verbs.def"
#undef VERB
#endif
