# One static binary and nothing else: COPY --from= takes it into other images, and it can be an ENTRYPOINT itself.
#
#     scripts/build && docker build -t run-task .
#
# buildx sets TARGETARCH. The classic builder does not know it: amd64, or --build-arg TARGETARCH=arm64.
FROM scratch
ARG TARGETARCH
# The default stands here and not in ARG: there it would win over what buildx sets.
COPY dist/run-task-linux-${TARGETARCH:-amd64} /run-task
ENTRYPOINT ["/run-task"]
