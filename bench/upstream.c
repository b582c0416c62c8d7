/* The stand-in for a model host: answers chat completions from one epoll thread, with canned text.
 *
 *   upstream PORT [events=50] [interval_ms=0] [delay_ms=0]        (PORT 0: any; the port is printed as a line)
 *
 * A request whose body says "stream": true is answered as SSE: `events` content events, a finish event with usage
 * and [DONE]. With interval_ms = 0 the head goes out in one write and everything else in a second one; else one
 * event every interval_ms, each carrying the microsecond (CLOCK_MONOTONIC) at which it was due as "@<16 digits>",
 * so that a reader on the same machine knows how late it is. Any other POST is answered with one JSON document,
 * after delay_ms.
 *
 * Two more addresses are for the harness: GET /set?events=N&interval_ms=N&delay_ms=N changes the settings for
 * requests to come, GET /counters tells what has happened. Every answer has the same bytes, so runs compare.
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

enum { FD_MAX = 1 << 16, SLOTS = 1 << 13, BATCH = 256 };
enum { IDLE, PACED, DELAYED };

struct bytes {
    char *at;
    size_t size, room;
};

struct peer {
    struct bytes in, out;
    size_t sent;  /* of out */
    int state;    /* IDLE: ready to take the next request */
    int left;     /* PACED: content events still to come */
    long due_us;  /* PACED, DELAYED: when the next piece is due */
    int interval_ms;
    int slot, before, after; /* its place in the wheel; slot 0: none; descriptor 0 ends a list */
    int open, blocked;
};

static struct peer peers[FD_MAX];
static int wheel[SLOTS + 1]; /* one list of descriptors per millisecond, from 1 */
static long wheel_ms, timed;
static int poller;
static int events = 50, interval_ms, delay_ms;
static struct { long connections, requests, whole, streams, finished, open, events, hangups; } seen;

#define META "\"id\":\"chatcmpl-standin\",\"created\":1735689600,\"model\":\"deepseek-chat\",\"system_fingerprint\":\"fp_standin\","
#define CHUNK "data: {" META "\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""
#define CHUNK_END "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define LAST "data: {" META "\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," \
    "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":50,\"total_tokens\":60,\"prompt_cache_hit_tokens\":0,\"prompt_cache_miss_tokens\":10}}\n\n"
#define DONE "data: [DONE]\n\n"
#define WHOLE "{" META "\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":" \
    "\"This answer was written in advance: the stand-in says it at once, so that only what stands between it and you is measured.\"}," \
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":30,\"total_tokens\":40,\"prompt_cache_hit_tokens\":0,\"prompt_cache_miss_tokens\":10}}"
#define MODELS "{\"object\":\"list\",\"data\":[{\"id\":\"deepseek-chat\",\"object\":\"model\",\"owned_by\":\"stand-in\"}]}"
static const char SSE_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

static long clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static void reserve(struct bytes *b, size_t more)
{
    if (b->size + more <= b->room)
        return;
    b->room = (b->size + more) * 2;
    b->at = realloc(b->at, b->room);
    if (!b->at)
        abort();
}

static void put(struct peer *p, const char *text, size_t size)
{
    reserve(&p->out, size);
    memcpy(p->out.at + p->out.size, text, size);
    p->out.size += size;
}

static void put_chunk(struct peer *p, const char *text, size_t size)
{
    char line[24];
    put(p, line, (size_t)sprintf(line, "%zx\r\n", size));
    put(p, text, size);
    put(p, "\r\n", 2);
}

static void put_event(struct peer *p, long due_us)
{
    char text[512];
    int size = due_us ? sprintf(text, CHUNK "@%016ld" CHUNK_END, due_us) : sprintf(text, CHUNK " hello" CHUNK_END);
    put_chunk(p, text, (size_t)size);
    seen.events++;
}

static void put_end(struct peer *p)
{
    put_chunk(p, LAST, sizeof LAST - 1);
    put_chunk(p, DONE, sizeof DONE - 1);
    put(p, "0\r\n\r\n", 5);
    seen.open--;
    seen.finished++;
}

static void put_json(struct peer *p, const char *body, size_t size)
{
    char head[128];
    put(p, head, (size_t)sprintf(head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", size));
    put(p, body, size);
}

static void watch(int fd, int op, unsigned what)
{
    struct epoll_event e = {.events = what, .data.fd = fd};
    epoll_ctl(poller, op, fd, &e);
}

static void unschedule(int fd)
{
    struct peer *p = &peers[fd];
    if (!p->slot)
        return;
    if (p->before)
        peers[p->before].after = p->after;
    else
        wheel[p->slot] = p->after;
    if (p->after)
        peers[p->after].before = p->before;
    p->slot = 0;
    timed--;
}

static void forget(int fd)
{
    struct peer *p = &peers[fd];
    if (!p->open)
        return;
    unschedule(fd);
    if (p->state == PACED) {
        seen.open--;
        seen.hangups++;
    } else if (p->state == DELAYED) {
        seen.hangups++;
    }
    p->open = p->blocked = 0;
    p->state = IDLE;
    p->in.size = p->out.size = p->sent = 0;
    close(fd);
}

static void flush(int fd)
{
    struct peer *p = &peers[fd];
    while (p->sent < p->out.size) {
        ssize_t n = send(fd, p->out.at + p->sent, p->out.size - p->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (!p->blocked)
                watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            p->blocked = 1;
            return;
        }
        if (n < 0) {
            forget(fd);
            return;
        }
        p->sent += (size_t)n;
    }
    p->sent = p->out.size = 0;
    if (p->blocked)
        watch(fd, EPOLL_CTL_MOD, EPOLLIN);
    p->blocked = 0;
}

static void schedule(int fd)
{
    struct peer *p = &peers[fd];
    long ms = p->due_us / 1000;
    if (ms <= wheel_ms)
        ms = wheel_ms + 1;
    if (ms >= wheel_ms + SLOTS)
        ms = wheel_ms + SLOTS - 1; /* looked at again when its turn comes */
    p->slot = (int)(ms % SLOTS) + 1;
    p->before = 0;
    p->after = wheel[p->slot];
    if (p->after)
        peers[p->after].before = fd;
    wheel[p->slot] = fd;
    timed++;
}

static long number_in(const char *query, const char *name, long otherwise)
{
    const char *at = strstr(query, name);
    return at ? atol(at + strlen(name)) : otherwise;
}

static void answer_get(struct peer *p, const char *line)
{
    char text[512];
    if (!strncmp(line, "GET /set?", 9)) {
        events = (int)number_in(line, "events=", events);
        interval_ms = (int)number_in(line, "interval_ms=", interval_ms);
        delay_ms = (int)number_in(line, "delay_ms=", delay_ms);
    } else if (strncmp(line, "GET /counters", 13)) {
        put_json(p, MODELS, sizeof MODELS - 1);
        return;
    }
    put_json(p, text, (size_t)sprintf(text,
        "{\"connections\":%ld,\"requests\":%ld,\"whole\":%ld,\"streams\":%ld,\"finished\":%ld,\"open\":%ld,\"events\":%ld,"
        "\"hangups\":%ld,\"set\":{\"events\":%d,\"interval_ms\":%d,\"delay_ms\":%d}}",
        seen.connections, seen.requests, seen.whole, seen.streams, seen.finished, seen.open, seen.events, seen.hangups,
        events, interval_ms, delay_ms));
}

static int wants_stream(const char *body)
{
    const char *at = strstr(body, "\"stream\"");
    if (!at)
        return 0;
    at += strlen("\"stream\"");
    at += strspn(at, " \t\r\n:");
    return !strncmp(at, "true", 4);
}

static void answer_post(int fd, const char *body)
{
    struct peer *p = &peers[fd];
    seen.requests++;
    if (!wants_stream(body)) {
        seen.whole++;
        if (delay_ms) {
            p->state = DELAYED;
            p->due_us = clock_us() + delay_ms * 1000L;
            schedule(fd);
            return;
        }
        put_json(p, WHOLE, sizeof WHOLE - 1);
        return;
    }
    seen.streams++;
    seen.open++;
    put(p, SSE_HEAD, sizeof SSE_HEAD - 1);
    if (interval_ms) {
        p->state = PACED;
        p->left = events;
        p->interval_ms = interval_ms;
        p->due_us = clock_us() + (delay_ms ? delay_ms : interval_ms) * 1000L;
        schedule(fd);
        return;
    }
    flush(fd);
    if (!p->open)
        return;
    for (int i = 0; i < events; i++)
        put_event(p, 0);
    put_end(p);
}

/* Take every whole request from what was read, one answer at a time. */
static void serve(int fd)
{
    struct peer *p = &peers[fd];
    while (p->open && p->state == IDLE) {
        char *head_end, *length, kept;
        size_t body = 0, head, all;
        p->in.at[p->in.size] = 0;
        head_end = strstr(p->in.at, "\r\n\r\n");
        if (!head_end)
            break;
        head = (size_t)(head_end + 4 - p->in.at);
        length = strcasestr(p->in.at, "\r\ncontent-length:");
        if (length && length < head_end)
            body = strtoul(length + 17, NULL, 10);
        all = head + body;
        if (p->in.size < all)
            break;
        kept = p->in.at[all];
        p->in.at[all] = 0;
        if (p->in.at[0] == 'G')
            answer_get(p, p->in.at);
        else
            answer_post(fd, p->in.at + head);
        if (!p->open)
            return;
        p->in.at[all] = kept;
        memmove(p->in.at, p->in.at + all, p->in.size - all);
        p->in.size -= all;
    }
    if (p->open && p->out.size)
        flush(fd);
}

static void receive(int fd)
{
    struct peer *p = &peers[fd];
    ssize_t n;
    reserve(&p->in, 8192 + 1);
    n = recv(fd, p->in.at + p->in.size, p->in.room - p->in.size - 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        forget(fd);
        return;
    }
    p->in.size += (size_t)n;
    serve(fd);
}

static void come_due(int fd, long now)
{
    struct peer *p = &peers[fd];
    if (p->state == DELAYED && p->due_us <= now) {
        put_json(p, WHOLE, sizeof WHOLE - 1);
        p->state = IDLE;
    }
    while (p->state == PACED && p->due_us <= now) {
        put_event(p, p->due_us);
        p->due_us += p->interval_ms * 1000L;
        if (--p->left == 0) {
            put_end(p);
            p->state = IDLE;
        }
    }
    if (p->state != IDLE)
        schedule(fd);
    flush(fd);
    if (p->open && p->state == IDLE && p->in.size)
        serve(fd);
}

static void turn_wheel(void)
{
    long now = clock_us(), until = now / 1000;
    while (wheel_ms < until) {
        int slot = (int)(++wheel_ms % SLOTS) + 1, fd;
        while ((fd = wheel[slot])) {
            unschedule(fd);
            come_due(fd, now);
        }
    }
}

static void welcome(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= FD_MAX) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        peers[fd].open = 1;
        seen.connections++;
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit files = {60000, 60000};
    socklen_t size = sizeof address;
    int listener, on = 1;
    if (argc < 2) {
        fprintf(stderr, "usage: upstream PORT [events=50] [interval_ms=0] [delay_ms=0]\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    if (argc > 2) events = atoi(argv[2]);
    if (argc > 3) interval_ms = atoi(argv[3]);
    if (argc > 4) delay_ms = atoi(argv[4]);
    setrlimit(RLIMIT_NOFILE, &files);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("upstream");
        return 1;
    }
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    wheel_ms = clock_us() / 1000;
    for (;;) {
        struct epoll_event ready[BATCH];
        int n;
        if (!timed)
            wheel_ms = clock_us() / 1000;
        n = epoll_wait(poller, ready, BATCH, timed ? 1 : -1);
        if (!timed)
            wheel_ms = clock_us() / 1000;
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                welcome(listener);
                continue;
            }
            if (peers[fd].open && (ready[i].events & EPOLLOUT))
                flush(fd);
            if (peers[fd].open && (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                receive(fd);
        }
        if (timed)
            turn_wheel();
    }
}
