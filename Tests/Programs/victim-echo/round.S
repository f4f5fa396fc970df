/*
 * void victim_round(struct computation *rdi, uint64_t rsi), x86-64: rsi steps on the state at rdi.
 *
 * rsp has the stack, and every other register has state. The offsets are those of compute.h; compute.c asserts them.
 */
#if defined(__x86_64__)

#define GENERAL 0
#define RED_ZONE 104
#define CHAOS 256
#define FACTOR 640
#define ONE 672
#define UPPER 704
#define MASK 1728
#define EXTENDED 1784
#define VECTORS 1800

#define EACH_GENERAL(do) \
    do(0, rax); do(1, rbx); do(2, rcx); do(3, rdx); do(4, rbp); do(5, r8); do(6, r9); \
    do(7, r10); do(8, r11); do(9, r12); do(10, r13); do(11, r14); do(12, r15)
#define EACH_PAIR(do) \
    do(r15, rax); do(rax, rbx); do(rbx, rcx); do(rcx, rdx); do(rdx, rbp); do(rbp, r8); do(r8, r9); \
    do(r9, r10); do(r10, r11); do(r11, r12); do(r12, r13); do(r13, r14); do(r14, r15)
#define EACH_RED_ZONE(do) \
    do(0, rax); do(1, rbx); do(2, rcx); do(3, rdx); do(4, rbp); do(5, r8); do(6, r9); do(7, r10); \
    do(8, r11); do(9, r12); do(10, r13); do(11, r14); do(12, r15); do(13, rax); do(14, rbx); do(15, rcx)
#define EACH_CHAOS(do) \
    do(0); do(1); do(2); do(3); do(4); do(5); do(6); do(7); do(8); do(9); do(10); do(11)
#define EACH_UPPER(do) \
    do(0, zmm16); do(1, zmm17); do(2, zmm18); do(3, zmm19); do(4, zmm20); do(5, zmm21); do(6, zmm22); do(7, zmm23); \
    do(8, zmm24); do(9, zmm25); do(10, zmm26); do(11, zmm27); do(12, zmm28); do(13, zmm29); do(14, zmm30); do(15, zmm31)
#define EACH_MASK(do) \
    do(0, k1); do(1, k2); do(2, k3); do(3, k4); do(4, k5); do(5, k6); do(6, k7)

#define LOAD_GENERAL(i, reg) mov GENERAL+8*i(%rdi), %reg
#define STORE_GENERAL(i, reg) mov %reg, GENERAL+8*i(%rdi)
#define LOAD_RED_ZONE(i, reg) mov RED_ZONE+8*i(%rdi), %rax; mov %rax, -8-8*i(%rsp)
#define STORE_RED_ZONE(i, reg) mov -8-8*i(%rsp), %rax; mov %rax, RED_ZONE+8*i(%rdi)
#define LOAD_SSE(i) movapd CHAOS+32*i(%rdi), %xmm##i
#define STORE_SSE(i) movapd %xmm##i, CHAOS+32*i(%rdi)
#define LOAD_AVX(i) vmovapd CHAOS+32*i(%rdi), %ymm##i
#define STORE_AVX(i) vmovapd %ymm##i, CHAOS+32*i(%rdi)
#define LOAD_UPPER(i, reg) vmovdqu64 UPPER+64*i(%rdi), %reg
#define STORE_UPPER(i, reg) vmovdqu64 %reg, UPPER+64*i(%rdi)
#define LOAD_MASK(i, reg) kmovq MASK+8*i(%rdi), %reg
#define STORE_MASK(i, reg) kmovq %reg, MASK+8*i(%rdi)

/* Each is reversible, so a changed bit stays changed to the end. adc includes the flags. */
#define MIX(from, to) adc %from, %to; rol $13, %to
#define MIX_RED_ZONE(i, reg) add %reg, -8-8*i(%rsp); xor -8-8*i(%rsp), %reg

/* x = factor x (1 - x): a wrong last digit becomes a wrong first digit after about fifty steps. */
#define STEP_SSE(i) movapd %xmm15, %xmm12; subpd %xmm##i, %xmm12; mulpd %xmm14, %xmm##i; mulpd %xmm12, %xmm##i
#define STEP_AVX(i) vsubpd %ymm##i, %ymm15, %ymm12; vmulpd %ymm14, %ymm##i, %ymm##i; vmulpd %ymm12, %ymm##i, %ymm##i

    .text
    .globl  victim_round
    .type   victim_round, @function
victim_round:
    push    %rbx
    push    %rbp
    push    %r12
    push    %r13
    push    %r14
    push    %r15

    EACH_RED_ZONE(LOAD_RED_ZONE)
    fldl    EXTENDED+8(%rdi)
    fldl    EXTENDED(%rdi)
    cmpl    $1, VECTORS(%rdi)
    jl      .Lload_sse
    je      .Lload_avx
    EACH_UPPER(LOAD_UPPER)
    EACH_MASK(LOAD_MASK)
.Lload_avx:
    vmovapd FACTOR(%rdi), %ymm14
    vmovapd ONE(%rdi), %ymm15
    EACH_CHAOS(LOAD_AVX)
    jmp     .Lloaded
.Lload_sse:
    movapd  FACTOR(%rdi), %xmm14
    movapd  ONE(%rdi), %xmm15
    EACH_CHAOS(LOAD_SSE)
.Lloaded:
    EACH_GENERAL(LOAD_GENERAL)

.Lstep:
    EACH_PAIR(MIX)
    EACH_RED_ZONE(MIX_RED_ZONE)
    fld1
    fsub    %st(1), %st
    fmulp   %st, %st(1)
    fmul    %st(1), %st
    cmpl    $1, VECTORS(%rdi)
    jl      .Lstep_sse
    EACH_CHAOS(STEP_AVX)
    jmp     .Lstepped
.Lstep_sse:
    EACH_CHAOS(STEP_SSE)
.Lstepped:
    dec     %rsi
    jnz     .Lstep

    EACH_GENERAL(STORE_GENERAL)
    EACH_RED_ZONE(STORE_RED_ZONE)
    fstpl   EXTENDED(%rdi)
    fstpl   EXTENDED+8(%rdi)
    cmpl    $1, VECTORS(%rdi)
    jl      .Lstore_sse
    je      .Lstore_avx
    EACH_UPPER(STORE_UPPER)
    EACH_MASK(STORE_MASK)
.Lstore_avx:
    EACH_CHAOS(STORE_AVX)
    vzeroupper
    jmp     .Lstored
.Lstore_sse:
    EACH_CHAOS(STORE_SSE)
.Lstored:
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbp
    pop     %rbx
    ret
    .size   victim_round, . - victim_round

#endif

    .section .note.GNU-stack, "", @progbits
