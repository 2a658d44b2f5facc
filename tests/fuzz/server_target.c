/* What llvm_forkserver.c makes of a request that comes to it. */
#include "llvm_forkserver.c"
#include <stdint.h>

static void within(const char *text, const char *texts, size_t size)
{
    if (text < texts || text > texts + size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct request request;
    char *texts = malloc(size + 1);
    if (!size) {
        free(texts);
        return 0; /* `receive` says so */
    }
    memcpy(texts, data, size);
    texts[size] = 0;
    if (parse(texts, size, &request)) {
        size_t count = 0;
        for (; request.arguments[count]; count++)
            within(request.arguments[count], texts, size);
        if (!count || count != request.count || request.variables != request.arguments + count + 1)
            abort();
        for (char **each = request.variables; *each; each++)
            within(*each, texts, size);
        free(request.arguments);
    }
    free(texts);
    return 0;
}
