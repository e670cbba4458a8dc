static int read_input(const char *path, @number@ *input)
{
    static unsigned char pixels[@NAME@_INPUT_SIZE + 1];
    FILE *file = fopen(path, "rb");
    size_t size;
    if (!file)
        return 0;
    size = fread(pixels, 1, sizeof pixels, file);
    fclose(file);
    @name@_preprocess(pixels, input);
    return size == @NAME@_INPUT_SIZE;
}
