/* The load generator: one epoll thread, a closed loop of chat completions over a fixed number of connections.
 *
 *   load PORT name=value …
 *
 *   connections=64  seconds=4     how many at once, how long they are counted
 *   warm_ms=500                   run this long before counting begins
 *   stagger_ms=0                  spread the first requests over this span
 *   mode=json|sse                 a whole answer or a stream
 *   hangup=0                      with sse: close the connection after this many events, and come again
 *   drain_s=10                    how long running answers may take to end once time is up (0: close at once)
 *   path= key= model= prompt=     what is asked, and as whom
 *   extra=                        more members of the request's JSON, with their leading comma
 *
 * Prints one JSON object. Rates count what ended within the counted span; `all_*` count from the first request to
 * the last. A content event that carries "@<16 digits>" is paced: its lateness is now minus that microsecond
 * (CLOCK_MONOTONIC). SIGTERM ends the counted span at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_ROOM = 1 << 16, KEEP = 32, BATCH = 256, LATE_MS_MAX = 10000 };
enum { HEAD, SIZE_LINE, DATA, DATA_END, TRAILER, PLAIN, OVER };

struct flow {
    int fd, state, status, chunked, newline, done_mark, answered;
    int digit;           /* how far into a due time we are: 0 not at all, n: before its n-th digit */
    long left;           /* of this chunk, or of a plain body; -1: until the connection ends */
    long due_us;         /* of the event whose mark is being read */
    double asked, first; /* seconds */
    long events;
    size_t head_size;
    char head[8192];
    char kept[KEEP]; /* the last bytes of the body so far */
    int kept_size;
};

struct samples {
    float *at;
    long size, room;
};

static const char *path = "/v1/chat/completions", *key = "none", *model = "deepseek-chat", *extra = "", *mode = "json";
static const char *prompt = "Which is greater, 9.11 or 9.8? Say why in one sentence.";
static long connections = 64, warm_ms = 500, stagger_ms, hangup, drain_s = 10;
static double seconds = 4;
static int port, poller, streaming, counting, ending;
static struct sockaddr_in address;
static char *request;
static int request_size, running;
static struct samples whole, first_byte;
static long late[LATE_MS_MAX * 10 + 1]; /* tenths of a millisecond */
static long ok, bad, cut, events, bytes, hangups, paced, all_asked, all_ok, all_bad, all_hangups, all_events;
static long statuses[1000];
static double late_max;
static char first_error[300];
static volatile sig_atomic_t stopped;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void remember(struct samples *s, double value)
{
    if (s->size == s->room) {
        s->room = s->room ? s->room * 2 : 1 << 16;
        s->at = realloc(s->at, sizeof(float) * (size_t)s->room);
        if (!s->at)
            abort();
    }
    s->at[s->size++] = (float)value;
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(struct samples *s, double q)
{
    return s->size ? (double)s->at[(long)((double)(s->size - 1) * q)] * 1e3 : 0;
}

static double late_ms(double q)
{
    long rank = (long)((double)paced * q), below = 0;
    for (int i = 0; i <= LATE_MS_MAX * 10; i++) {
        below += late[i];
        if (below > rank)
            return i / 10.0;
    }
    return paced ? LATE_MS_MAX : 0;
}

static void fail(struct flow *f, const char *why)
{
    all_bad++;
    if (counting)
        bad++;
    if (!first_error[0]) {
        snprintf(first_error, sizeof first_error, "%d %s", f->status, why);
        for (char *c = first_error; *c; c++)
            if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
                *c = '\'';
    }
}

static void ask(struct flow *f)
{
    f->state = HEAD;
    f->status = f->chunked = f->newline = f->done_mark = f->answered = f->kept_size = f->digit = 0;
    f->head_size = 0;
    f->events = f->left = 0;
    f->first = 0;
    f->asked = now_s();
    all_asked++;
    /* A failed write shows as the end of the connection, which the reader counts. */
    if (send(f->fd, request, (size_t)request_size, MSG_NOSIGNAL) < 0)
        return;
}

static void join(struct flow *f)
{
    int on = 1;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = f};
    f->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (f->fd < 0 || connect(f->fd, (void *)&address, sizeof address)) {
        perror("load: connect");
        exit(1);
    }
    setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_ctl(poller, EPOLL_CTL_ADD, f->fd, &e);
}

static void leave(struct flow *f)
{
    close(f->fd);
    f->fd = -1;
    running--;
}

static void again(struct flow *f)
{
    if (ending) {
        leave(f);
        return;
    }
    ask(f);
}

static void rejoin(struct flow *f)
{
    close(f->fd);
    f->fd = -1;
    if (ending) {
        running--;
        return;
    }
    join(f);
    ask(f);
}

static void note_late(double ms)
{
    long tenth = ms < 0 ? 0 : (long)(ms * 10);
    if (!counting)
        return;
    late[tenth > LATE_MS_MAX * 10 ? LATE_MS_MAX * 10 : tenth]++;
    paced++;
    if (ms > late_max)
        late_max = ms;
}

/* Due times in the content; one may be cut by the end of a read, so where we are in it is kept. */
static void read_due(struct flow *f, const char *at, const char *end, double now)
{
    while (at < end) {
        if (!f->digit) {
            at = memchr(at, '@', (size_t)(end - at));
            if (!at)
                return;
            at++;
            f->digit = 1;
            f->due_us = 0;
        } else if (*at < '0' || *at > '9') {
            f->digit = 0;
        } else {
            f->due_us = f->due_us * 10 + (*at++ - '0');
            if (++f->digit > 16) {
                note_late(now * 1e3 - (double)f->due_us / 1e3);
                f->digit = 0;
            }
        }
    }
}

/* Has the end mark come? It may be spread over reads: the last bytes are kept and looked at with the new ones. */
static void read_end_mark(struct flow *f, const char *data, size_t size)
{
    char seam[2 * KEEP];
    size_t more = size < KEEP ? size : KEEP, all = (size_t)f->kept_size + more;
    memcpy(seam, f->kept, (size_t)f->kept_size);
    memcpy(seam + f->kept_size, data + size - more, more);
    if (size > KEEP) {
        memcpy(seam, data + size - KEEP, KEEP);
        all = KEEP;
    }
    if (memmem(seam, all, "[DONE]", 6))
        f->done_mark = 1;
    f->kept_size = (int)(all < KEEP ? all : KEEP);
    memmove(f->kept, seam + all - (size_t)f->kept_size, (size_t)f->kept_size);
}

/* Bytes of the body, freed of transfer coding. */
static void take(struct flow *f, const char *data, size_t size, double now)
{
    const char *at = data, *end = data + size;
    if (!f->first)
        f->first = now;
    if (f->status != 200 && !f->answered) {
        f->answered = 1;
        fail(f, strndupa(data, size < 250 ? size : 250));
    }
    if (!streaming)
        return;
    while (at < end) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        if (!line) {
            f->newline = 0;
            break;
        }
        if (line > at && !(line == at + 1 && *at == '\r'))
            f->newline = 0;
        if (f->newline) {
            f->events++;
            all_events++;
            if (counting)
                events++;
            f->newline = 0;
        } else {
            f->newline = 1;
        }
        at = line + 1;
    }
    read_due(f, data, end, now);
    read_end_mark(f, data, size);
}

static void finish(struct flow *f, double now)
{
    if (f->status > 0 && f->status < 1000)
        statuses[f->status]++;
    if (f->status != 200) {
        if (!f->answered)
            fail(f, "an answer with no body");
    } else if (streaming && !f->done_mark) {
        cut++;
        fail(f, "a stream without its end mark");
    } else {
        all_ok++;
        if (counting) {
            ok++;
            remember(&whole, now - f->asked);
            remember(&first_byte, f->first - f->asked);
        }
    }
}

/* The head is whole: what kind of body follows? */
static void read_head(struct flow *f)
{
    char *length;
    f->status = atoi(f->head + 9);
    f->chunked = strcasestr(f->head, "\r\ntransfer-encoding: chunked") != NULL;
    length = strcasestr(f->head, "\r\ncontent-length:");
    f->left = length ? atol(length + 17) : -1;
    f->state = f->chunked ? SIZE_LINE : f->left == 0 ? OVER : PLAIN;
    if (f->chunked)
        f->left = 0;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void feed(struct flow *f, const char *at, const char *end, double now)
{
    while (at < end && f->state != OVER) {
        if (f->state == HEAD) {
            size_t n = (size_t)(end - at), had = f->head_size;
            char *stop;
            if (n > sizeof f->head - 1 - had)
                n = sizeof f->head - 1 - had;
            memcpy(f->head + had, at, n);
            f->head[had + n] = 0;
            stop = strstr(f->head, "\r\n\r\n");
            if (!stop) {
                f->head_size += n;
                at += n;
                if (!n)
                    f->state = OVER;
                continue;
            }
            stop[2] = 0;
            at += (size_t)(stop + 4 - f->head) - had;
            read_head(f);
        } else if (f->state == SIZE_LINE) {
            int digit = hex(*at);
            if (digit >= 0)
                f->left = f->left * 16 + digit;
            else if (*at == '\n') {
                f->state = f->left ? DATA : TRAILER;
                f->head_size = 0;
            }
            at++;
        } else if (f->state == DATA || f->state == PLAIN) {
            long n = end - at;
            if (f->left >= 0 && n > f->left)
                n = f->left;
            take(f, at, (size_t)n, now);
            at += n;
            if (f->left > 0)
                f->left -= n;
            if (f->left == 0)
                f->state = f->state == DATA ? DATA_END : OVER;
        } else if (f->state == DATA_END) {
            if (*at++ == '\n') {
                f->state = SIZE_LINE;
                f->left = 0;
            }
        } else { /* TRAILER: lines until an empty one */
            if (*at == '\n') {
                if (!f->head_size)
                    f->state = OVER;
                f->head_size = 0;
            } else if (*at != '\r') {
                f->head_size++;
            }
            at++;
        }
    }
}

static void receive(struct flow *f)
{
    static char room[READ_ROOM];
    ssize_t n = recv(f->fd, room, sizeof room, MSG_DONTWAIT);
    double now = now_s();
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (f->state == PLAIN && f->left < 0)
            finish(f, now);
        else
            fail(f, "the connection ended early");
        rejoin(f);
        return;
    }
    if (counting)
        bytes += n;
    feed(f, room, room + n, now);
    if (f->state == OVER) {
        finish(f, now);
        again(f);
    } else if (hangup && f->events >= hangup) {
        all_hangups++;
        if (counting)
            hangups++;
        rejoin(f);
    }
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void option(const char *text)
{
    const char *value = strchr(text, '=');
    size_t n;
    if (!value) {
        fprintf(stderr, "load: %s is not name=value\n", text);
        exit(2);
    }
    n = (size_t)(value++ - text);
#define IS(name) (n == sizeof name - 1 && !strncmp(text, name, n))
    if (IS("connections")) connections = atol(value);
    else if (IS("seconds")) seconds = atof(value);
    else if (IS("warm_ms")) warm_ms = atol(value);
    else if (IS("stagger_ms")) stagger_ms = atol(value);
    else if (IS("hangup")) hangup = atol(value);
    else if (IS("drain_s")) drain_s = atol(value);
    else if (IS("mode")) mode = value;
    else if (IS("path")) path = value;
    else if (IS("key")) key = value;
    else if (IS("model")) model = value;
    else if (IS("prompt")) prompt = value;
    else if (IS("extra")) extra = value;
    else {
        fprintf(stderr, "load: unknown option %s\n", text);
        exit(2);
    }
}

static void report(double span)
{
    qsort(whole.at, (size_t)whole.size, sizeof(float), ascending);
    qsort(first_byte.at, (size_t)first_byte.size, sizeof(float), ascending);
    printf("{\"seconds\":%.3f,\"ok\":%ld,\"bad\":%ld,\"cut\":%ld,\"hangups\":%ld,\"rate\":%.1f,\"events\":%ld,\"event_rate\":%.1f,\"byte_rate\":%.0f,",
        span, ok, bad, cut, hangups, (double)ok / span, events, (double)events / span, (double)bytes / span);
    printf("\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"first_p50_ms\":%.3f,\"first_p99_ms\":%.3f,",
        quantile_ms(&whole, .5), quantile_ms(&whole, .9), quantile_ms(&whole, .99), quantile_ms(&first_byte, .5), quantile_ms(&first_byte, .99));
    printf("\"paced\":%ld,\"paced_rate\":%.1f,\"late_p50_ms\":%.1f,\"late_p99_ms\":%.1f,\"late_max_ms\":%.1f,",
        paced, (double)paced / span, late_ms(.5), late_ms(.99), late_max);
    printf("\"all_asked\":%ld,\"all_ok\":%ld,\"all_bad\":%ld,\"all_hangups\":%ld,\"all_events\":%ld,\"statuses\":{",
        all_asked, all_ok, all_bad, all_hangups, all_events);
    for (int i = 0, n = 0; i < 1000; i++)
        if (statuses[i])
            printf("%s\"%d\":%ld", n++ ? "," : "", i, statuses[i]);
    printf("},\"first_error\":\"%s\"}\n", first_error);
}

int main(int argc, char **argv)
{
    struct rlimit files = {60000, 60000};
    struct flow *flows;
    char *body;
    int body_size;
    double start, count_from, count_until, give_up, counted_from = 0, span = 0;
    long joined = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: load PORT name=value …\n");
        return 2;
    }
    port = atoi(argv[1]);
    for (int i = 2; i < argc; i++)
        option(argv[i]);
    streaming = !strcmp(mode, "sse");
    signal(SIGTERM, on_signal);
    setrlimit(RLIMIT_NOFILE, &files);
    body_size = asprintf(&body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
        "{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":256%s%s}",
        model, prompt, streaming ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "", extra);
    request_size = asprintf(&request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
        "Accept: */*\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%s", path, port, key, body_size, body);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    poller = epoll_create1(0);
    flows = calloc((size_t)connections, sizeof *flows);
    start = now_s();
    count_from = start + (double)(warm_ms + stagger_ms) / 1e3;
    count_until = count_from + seconds;
    give_up = count_until + (double)drain_s;
    while (joined < connections || running) {
        struct epoll_event ready[BATCH];
        double now = now_s();
        int n;
        if (!counting && !ending && now >= count_from) {
            counting = 1;
            counted_from = now;
        }
        if (!ending && (stopped || now >= count_until)) {
            span = counting ? now - counted_from : 1e-9;
            counting = 0;
            ending = 1;
            if (stopped)
                give_up = now + (double)drain_s;
        }
        if (ending && (!drain_s || now >= give_up))
            break;
        while (!ending && joined < connections && now >= start + (double)stagger_ms / 1e3 * (double)joined / (double)connections) {
            join(&flows[joined]);
            running++;
            ask(&flows[joined++]);
        }
        if (ending && joined < connections)
            joined = connections;
        n = epoll_wait(poller, ready, BATCH, joined < connections ? 1 : 50);
        for (int i = 0; i < n; i++)
            receive(ready[i].data.ptr);
    }
    report(span > 0 ? span : 1e-9);
    return 0;
}
