/* BERT's WordPiece tokenizer (uncased): clean, split CJK, lower-case, strip accents, split punctuation, then longest match from the vocabulary.
   Unicode tables come from utf8proc. */
#ifndef WORDPIECE_H
#define WORDPIECE_H
#include <stddef.h>
#include <stdint.h>

typedef struct wordpiece wordpiece;
/* vocab.txt: one token a line, the line number is its id. NULL when it cannot be read or lacks [CLS], [SEP] or [UNK]. */
wordpiece *wordpiece_open(const char *vocab_path);
void wordpiece_close(wordpiece *w);
/* Writes [CLS] tokens [SEP], at most cap (>= 2) ids, truncating the text. Returns how many. Invalid UTF-8 is skipped. */
size_t wordpiece_encode(const wordpiece *w, const char *text, size_t bytes, int64_t *ids, size_t cap);
#endif
