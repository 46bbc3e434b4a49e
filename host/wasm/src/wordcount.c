/* A WASI command: counts the lines, words and bytes of its standard input and prints them as JSON. */
#include <ctype.h>
#include <stdio.h>

int main(void) {
    unsigned long lines = 0, words = 0, bytes = 0;
    int inside = 0;
    for (int c = getchar(); c != EOF; c = getchar()) {
        bytes++;
        if (c == '\n')
            lines++;
        if (isspace(c)) {
            inside = 0;
        } else if (!inside) {
            inside = 1;
            words++;
        }
    }
    if (ferror(stdin))
        return 1;
    printf("{\"lines\": %lu, \"words\": %lu, \"bytes\": %lu}\n", lines, words, bytes);
    return 0;
}
