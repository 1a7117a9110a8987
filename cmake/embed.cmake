# cmake -DFROM=text -DTO=file.c -DNAME=symbol -P embed.cmake: the text as a C array, bytes as numbers, so that any length and any character will do.
file(READ ${FROM} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${TO}.tmp "extern const char ${NAME}[];\nconst char ${NAME}[] = {\n${bytes}0};\n")
file(COPY_FILE ${TO}.tmp ${TO} ONLY_IF_DIFFERENT)
