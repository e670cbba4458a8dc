static int read_input(const char *path, @number@ *input)
{
    FILE *file = fopen(path, "rb");
    size_t size;
    if (!file)
        return 0;
    size = fread(input, sizeof *input, @NAME@_INPUT_SIZE, file);
    fclose(file);
    return size == @NAME@_INPUT_SIZE;
}
